import type { GuestAgent } from './agent.ts';
import { guestScript } from './programs.ts';
import {
  busyProcess,
  refusal,
  runScript,
  sysfsPci,
  type BusyProcess,
  type DiskIdentity,
  type Facts,
} from './run-script.ts';

const HOLDERS = guestScript('holders');
/** For the script, and for each disk: it costs little, but a slow guest of a hundred disks takes some seconds. */
const LOOK_MS = 8000;
const LOOK_MS_EACH = 100;
const HOLDERS_MAX = 64;
/** So many disks are looked at in one script. */
const DISKS_MAX = 256;

/** What a guest that was asked has answered of a disk. */
export type DiskUse =
  /** It has no disk there: nobody uses it. */
  | { readonly there: false }
  /** `users`: everybody, at most 64; none: nobody. */
  | { readonly there: true; readonly users: readonly BusyProcess[] };

/** How long a guest may take to say who uses so many disks. */
function lookMs(disks: number): number {
  return LOOK_MS + disks * LOOK_MS_EACH;
}

/** Looks at once, and tells only of disks that it has seen nobody use (guest-events.ts). */
export interface QuickLooks {
  unused(addresses: readonly string[]): Promise<ReadonlySet<string>>;
}

interface Question {
  readonly identity: DiskIdentity;
  readonly answer: PromiseWithResolvers<DiskUse>;
}

/**
 * Who uses disks: mounts of it or of its partitions in any namespace, swap, device-mapper, md, loop devices and the
 * like on top, files open on it, and processes that have the disk itself open. A look costs the guest about the same
 * for one disk and for a hundred, so that all who ask while one is under way share the next one. Who it is takes a
 * script; that it is nobody, a guest with a program for it tells at once.
 */
export class DiskHolders {
  readonly #agent: GuestAgent;
  readonly #quick: QuickLooks | undefined;
  #waiting: Question[] = [];
  #looking = false;

  constructor(agent: GuestAgent, quick?: QuickLooks) {
    this.#agent = agent;
    this.#quick = quick;
  }

  /**
   * Asks the guest. The look begins after the call.
   * @throws ShimError FAILED_PRECONDITION: GUEST_DISK_MISMATCH, GUEST_PROBE_FAILED (the script was not seen to look to
   *   the end); UNIMPLEMENTED / GUEST_TOOL_MISSING; and what GuestAgent.exec throws
   */
  async of(identity: DiskIdentity): Promise<DiskUse> {
    const answer = Promise.withResolvers<DiskUse>();
    this.#waiting.push({ identity, answer });
    // Who asks in the same turn, as the members of a batch do, is asked for together.
    if (!this.#looking) {
      this.#looking = true;
      setImmediate(() => void this.#run());
    }
    return await answer.promise;
  }

  async #run(): Promise<void> {
    while (this.#waiting.length > 0) {
      const questions = await this.#lookQuickly(this.#waiting.splice(0, DISKS_MAX));
      const failed = await this.#look(questions).then(
        () => undefined,
        (error: unknown) => ({ error }),
      );
      if (failed !== undefined) for (const { answer } of questions) answer.reject(failed.error);
    }
    this.#looking = false;
  }

  /** Answers what a quick look can. @returns the questions that are left */
  async #lookQuickly(questions: readonly Question[]): Promise<readonly Question[]> {
    const unused = await this.#quick?.unused(questions.map(({ identity }) => sysfsPci(identity.pci)));
    return questions.filter(({ identity, answer }) => {
      if (unused?.has(sysfsPci(identity.pci)) !== true) return true;
      answer.resolve({ there: true, users: [] });
      return false;
    });
  }

  async #look(questions: readonly Question[]): Promise<void> {
    const [first, ...others] = questions.map(({ identity }) => identity);
    if (first === undefined) return;
    const facts = await runScript(this.#agent, HOLDERS, {
      identity: first,
      args: others.flatMap(({ pci, serial }) => [sysfsPci(pci), serial]),
      timeoutMs: lookMs(questions.length),
      fallback: 'GUEST_PROBE_FAILED',
    });
    // Printed last: without it the script was cut short, and that it names nobody says nothing.
    const whole = facts.get('looked')?.[0] === '1';
    for (const { identity, answer } of questions) {
      const use = whole ? useOf(identity, facts) : undefined;
      if (use === undefined) answer.reject(refusal('GUEST_PROBE_FAILED', { identity }, 'no result'));
      else if (typeof use === 'string') answer.reject(refusal(use, { identity }, ''));
      else answer.resolve(use);
    }
  }
}

/** What the script printed of one disk; undefined: nothing. */
function useOf(
  { pci }: DiskIdentity,
  facts: Facts,
): DiskUse | 'GUEST_DISK_MISMATCH' | 'GUEST_PROBE_FAILED' | undefined {
  const address = sysfsPci(pci);
  const told = (key: string): readonly string[] | undefined =>
    (facts.get(key) ?? []).map((line) => line.split(' ')).find(([first]) => first === address);
  const missing = told('missing');
  if (missing !== undefined) {
    if (missing[1] === 'GUEST_DISK_NOT_FOUND') return { there: false };
    return missing[1] === 'GUEST_DISK_MISMATCH' ? missing[1] : 'GUEST_PROBE_FAILED';
  }
  const numbers = told('disk')?.slice(1);
  if (numbers === undefined) return undefined;
  const users = (facts.get('use') ?? []).flatMap((line) => {
    const [number = ''] = line.split(' ', 1);
    return numbers.includes(number) ? (busyProcess(line.slice(number.length + 1)) ?? []) : [];
  });
  // What is mounted has a superblock; that is news only of a file system that is mounted nowhere.
  const others = users.filter(({ what }) => !what.startsWith('superblock:'));
  return { there: true, users: (others.length === 0 ? users : others).slice(0, HOLDERS_MAX) };
}
