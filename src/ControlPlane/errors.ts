/** The failures of this ring, declared with the ports that name them: one class for each decision that a caller can take. */
export {
  Fenced,
  InvalidData,
  OutcomeUnknown,
  RecordNotFound,
  RevisionConflict,
  SettingInvalid,
  StoreUnavailable
} from "../Actor/errors.ts"
