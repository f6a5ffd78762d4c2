/** Caps that both the transports and the settings name. */

/** Default cap of a data frame, in bytes. */
export const defaultMaxFrameBytes = 1024 * 1024
/** No setting may raise the cap above this, in bytes. */
export const hardMaxFrameBytes = 16 * 1024 * 1024
