import { execa } from 'execa';
import { errnoOf } from './errors.ts';

/** By which the kernel says that it has no room just now: what was asked for was not tried. */
const SHORTAGES: ReadonlySet<string> = new Set(['EMFILE', 'ENFILE', 'EAGAIN', 'ENOMEM']);

/**
 * execa, which does not expect that this process has no descriptor left: here that is the system error EMFILE. The
 * child's own error is for base/failed-spawns.ts.
 */
export const run = new Proxy(execa, {
  apply(target, self, args): unknown {
    try {
      return Reflect.apply(target, self, args);
    } catch (error) {
      // Node gives a child that it had no descriptors for no streams.
      if (!(error instanceof TypeError && error.message.includes('stdio is not iterable'))) throw error;
      const problem = `${String(args[0])} cannot be run: no file descriptors are left`;
      throw Object.assign(new Error(problem, { cause: error }), { code: 'EMFILE' });
    }
  },
});

/**
 * Whether something failed for want of descriptors, processes or memory: that says nothing about what was to be found
 * out, and the next try may succeed.
 */
export function isShortage(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return SHORTAGES.has(errnoOf(error) ?? '') || isShortage(error.cause);
}
