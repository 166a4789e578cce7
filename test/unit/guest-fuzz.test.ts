import { it } from 'node:test';
import fc from 'fast-check';
import { feed, sequences } from '../support/fuzz-channels.ts';

/** A million of them, and the same over sockets: test/security/guest-fuzz.test.ts. */
it('whatever a guest sends on any channel throws nothing, and nothing but a bound is kept of it', () => {
  fc.assert(fc.property(sequences, feed), { numRuns: 3000 });
});
