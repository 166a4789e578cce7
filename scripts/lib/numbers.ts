import { randomInt } from 'node:crypto';
import { InvalidArgumentError } from '@commander-js/extra-typings';

/** Option parsers for commander. @throws InvalidArgumentError */
export function positiveNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value) || value <= 0) throw new InvalidArgumentError('Not above 0.');
  return value;
}

export function positiveInteger(text: string): number {
  const value = positiveNumber(text);
  if (!Number.isSafeInteger(value)) throw new InvalidArgumentError('Not a whole number.');
  return value;
}

/** A seed for runs that name none; short enough to be typed. */
export function randomSeed(): number {
  return randomInt(1, 1_000_000);
}
