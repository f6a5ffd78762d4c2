/**
 * What every side of a local bench offers: a crowd of actors, each with a number that messages add to, made by the side's own
 * ordinary means.
 */
import { Effect } from "effect"

/** `make()` run `count` times, one after the other, in one fiber. */
export const times = <E, R>(count: number, make: (index: number) => Effect.Effect<unknown, E, R>) =>
  Effect.suspend(() => {
    let index = 0
    return Effect.whileLoop({ while: () => index < count, body: () => make(index++), step: () => {} })
  })

/** Counts what arrives and says when it was all; the same few instructions in each side's handler. */
export class Arrivals {
  private left = 0
  private tell = (): void => {}
  /** resolves after `count` arrivals from now on */
  expect(count: number): Promise<void> {
    this.left = count
    return new Promise((resolve) => this.tell = resolve)
  }
  arrived(): void {
    if (--this.left === 0) this.tell()
  }
}

export interface Crowd {
  /** To each actor in turn `each` messages in a row, `loops` times over; resolves when the last one was handled. */
  readonly tell: (each: number, loops: number) => Promise<void>
  /** `count` questions, of which `inFlight` wait at any time, asker i with actor i; each with a timeout. */
  readonly ask?: ((inFlight: number, count: number) => Promise<void>) | undefined
  /** The same, each question behind a message to the same actor, so that it must wait in the mailbox. */
  readonly askBehind?: ((inFlight: number, count: number) => Promise<void>) | undefined
  readonly close?: (() => Promise<void>) | undefined
}
