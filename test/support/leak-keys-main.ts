/**
 * Loaded into the daemon with `--import`: prints every key that it fetches, as a careless line of code would. So the
 * scan for keys is shown to find a leak of the real daemon's.
 */
import { KeyMaterial } from '../../src/keys/material.ts';

const take = KeyMaterial.take.bind(KeyMaterial);
KeyMaterial.take = (bytes) => {
  process.stdout.write(`${JSON.stringify({ fetched: Buffer.from(bytes) })}\n`);
  return take(bytes);
};
