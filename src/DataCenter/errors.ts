/** The failures of this ring, declared with the ports that name them: one class for each decision that a caller can take. */
export {
  AmbiguousDataCenter,
  DataCenterNotReady,
  KindNotAllowed,
  OutcomeUnknown,
  RecordNotFound,
  SettingInvalid,
  StaleRecords,
  StoreUnavailable
} from "../Actor/errors.ts"
