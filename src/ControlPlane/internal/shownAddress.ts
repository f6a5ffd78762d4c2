/** An address as it may be shown: what stands before an `@` may be a name with a password, or a token. */
export const shownAddress = (address: string): string => address.replace(/^([a-z]+:\/\/)?.*@/i, "$1***@")
