/**
 * What comes in together is answered together: while a node takes frames in, what that gives rise to is gathered, on whatever
 * session it goes out, and leaves when the last of them was taken.
 */
export interface Taking {
  readonly turnEnded: () => void
}

export class Turns {
  private depth = 0
  private readonly written: Array<Taking> = []

  get running(): boolean {
    return this.depth > 0
  }

  begin(): void {
    this.depth++
  }

  end(): void {
    if (--this.depth > 0) return
    while (this.written.length > 0) this.written.pop()!.turnEnded()
  }

  /** That one is to be told when the turn is over. */
  wrote(session: Taking): void {
    this.written.push(session)
  }
}
