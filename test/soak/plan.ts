import { Random } from './random.ts';

/** What one step of the soak does, decided by seed and number alone: the same seed gives the same plans. */
export interface StepPlan {
  readonly kind: StepKind;
  /** Which sandbox the step itself is about. */
  readonly sandbox: number;
  /** What callers ask for meanwhile, all at once, each of another volume. */
  readonly volumes: readonly VolumePlan[];
  /** From the calls to the fault. */
  readonly delayMs: number;
  /** How long a fault that ends by itself lasts. */
  readonly lengthMs: number;
  /** Whether a sandbox that is gone is to be made meanwhile. */
  readonly recreate: boolean;
  /** For the bytes that are written. */
  readonly random: Random;
}

export interface VolumePlan {
  readonly kind: 'attach' | 'detach' | 'force-detach' | 'detach-twice';
  readonly sandbox: number;
  readonly file: number;
  readonly readOnly: boolean;
  readonly patienceMs: number | undefined;
}

export const OPERATIONS = ['volumes', 'write', 'exec', 'create', 'stop', 'delete', 'reboot', 'busy'] as const;
export const FAULTS = ['daemon-kill', 'daemon-term', 'qemu-pause', 'qemu-kill', 'agent-kill', 'journal-cut'] as const;
export type StepKind = (typeof OPERATIONS)[number] | (typeof FAULTS)[number];

export interface SoakSize {
  readonly sandboxes: number;
  readonly files: number;
}

const KINDS: readonly (readonly [weight: number, kind: StepKind])[] = [
  [40, 'volumes'],
  [16, 'write'],
  [3, 'exec'],
  [3, 'create'],
  [2, 'stop'],
  [2, 'delete'],
  [2, 'reboot'],
  [3, 'busy'],
  [14, 'daemon-kill'],
  [4, 'daemon-term'],
  [5, 'qemu-pause'],
  [2, 'qemu-kill'],
  [3, 'agent-kill'],
  [2, 'journal-cut'],
];
const VOLUME_KINDS: readonly (readonly [weight: number, kind: VolumePlan['kind']])[] = [
  [10, 'attach'],
  [6, 'detach'],
  [1, 'force-detach'],
  [2, 'detach-twice'],
];
const VOLUMES_AT_ONCE_MAX = 4;
const AWAY_FROM_HOME = 0.15;
const READ_ONLY = 0.2;
const IMPATIENT = 0.12;
const PATIENCE_MAX_MS = 50;
const DELAY_MAX_MS = 400;
const LENGTH_MAX_MS = 1500;
const RECREATE = 0.6;

/**
 * The plan of step `step`. Each volume has a home sandbox, where most of its life is spent, so that it is found there.
 */
export function planStep(seed: number, step: number, size: SoakSize): StepPlan {
  const random = new Random(seed, `step ${step}`);
  const kind = random.weighted(KINDS);
  const count = kind === 'volumes' ? 1 + random.below(VOLUMES_AT_ONCE_MAX) : random.below(VOLUMES_AT_ONCE_MAX);
  const files = random.distinct(count, size.files);
  return {
    kind,
    sandbox: random.below(size.sandboxes),
    volumes: files.map((file) => {
      const away = random.chance(AWAY_FROM_HOME);
      const elsewhere = random.below(size.sandboxes);
      const impatient = random.chance(IMPATIENT);
      const patienceMs = 1 + random.below(PATIENCE_MAX_MS);
      return {
        kind: random.weighted(VOLUME_KINDS),
        sandbox: away ? elsewhere : file % size.sandboxes,
        file,
        readOnly: random.chance(READ_ONLY),
        patienceMs: impatient ? patienceMs : undefined,
      };
    }),
    delayMs: random.below(DELAY_MAX_MS),
    lengthMs: 50 + random.below(LENGTH_MAX_MS),
    recreate: random.chance(RECREATE),
    random,
  };
}
