import { invalidArgument } from '../base/errors.ts';
import type { Permit } from '../callers/gate.ts';
import type { SandboxManager } from '../sandbox/manager.ts';
import type { SandboxSnapshot } from '../sandbox/sandbox.ts';
import { checkLabels } from '../sandbox/spec.ts';
import type { ShimEvent } from '../store/event.ts';

/** States that a request may name: there are four. */
const STATES_MAX = 16;

type Sandboxes = Pick<SandboxManager, 'labelsOf'>;

/**
 * Which events one watcher may see: those of sandboxes that its caller may read. A sandbox that is gone has no labels
 * any more, and its last events are still on their way: what the watcher has seen of it is kept until its end.
 */
export class Visibility {
  readonly #sandboxes: Sandboxes;
  readonly #permit: Permit;
  /** Sandboxes of which the watcher was told, and may be. */
  readonly #shown = new Set<string>();

  constructor(sandboxes: Sandboxes, permit: Permit) {
    this.#sandboxes = sandboxes;
    this.#permit = permit;
  }

  /** Whether a sandbox may be shown as it is now. */
  shows(sandboxId: string): boolean {
    const found = this.#sandboxes.labelsOf(sandboxId);
    const shown = found !== undefined && this.#permit.sees(found.labels);
    this.#note(sandboxId, shown);
    return shown;
  }

  /** To be asked about every event, in their order. */
  admits(event: ShimEvent): boolean {
    const { sandboxId, type, volumeId, subject, timeMs } = event;
    // An unlimited reader is shown what nobody knows the labels of any more, too.
    if (this.#permit.sees({})) return true;
    if (volumeId === undefined && subject !== undefined) {
      // Events of a sandbox carry its snapshot (Sandbox.announce).
      const shown = this.#permit.sees((subject as SandboxSnapshot).spec.labels);
      this.#note(sandboxId, shown && type !== 'sandbox.deleted');
      return shown;
    }
    if (this.#shown.has(sandboxId)) return true;
    const found = this.#sandboxes.labelsOf(sandboxId);
    // What is older than the sandbox is about another one of its name.
    return found !== undefined && found.createdAtMs <= timeMs && this.#permit.sees(found.labels);
  }

  #note(sandboxId: string, shown: boolean): void {
    if (shown) this.#shown.add(sandboxId);
    else this.#shown.delete(sandboxId);
  }
}

/** Labels to look for, bounded as those of a sandbox are. @throws ShimError INVALID_ARGUMENT */
export function labelFilter(labels: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  checkLabels('labels', labels);
  return labels;
}

/** @throws ShimError INVALID_ARGUMENT */
export function stateFilter<S>(states: readonly S[]): readonly S[] {
  if (states.length > STATES_MAX) throw invalidArgument('states', states.length, `at most ${STATES_MAX} are allowed`);
  return states;
}
