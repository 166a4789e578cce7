import { isReason, type Reason } from '../base/reasons.ts';
import type { CliFailure } from './cli-failure.ts';

/** What the command was about, so that a hint can name the next command to type. */
export interface Subject {
  readonly sandboxId?: string | undefined;
  readonly volumeId?: string | undefined;
}

type Hint = (subject: Subject) => string;

const listSandboxes: Hint = () => '`qshim sandbox list` shows the sandboxes there are';
const listVolumes: Hint = (subject) => `${command('volume list', subject.sandboxId)} shows the volumes there are`;
const getSandbox: Hint = (subject) => `${command('sandbox get', subject.sandboxId)} shows its state and why`;
const getVolume: Hint = (subject) =>
  `${command('volume get', subject.sandboxId, subject.volumeId)} shows its state, \`qshim watch\` how it goes on`;

/** Reasons (google.rpc.ErrorInfo, or this command's own) for which we know the next step. */
const BY_REASON: { readonly [R in Reason]?: Hint } = {
  DAEMON_UNREACHABLE: () =>
    'start the daemon with `qshimd`, or name its socket with --socket or QSHIM_SOCKET; `qshim doctor` looks closer',
  SOCKET_NOT_ACCESSIBLE: () => 'the socket belongs to the user of the daemon: run qshim as that user, or with sudo',
  SOCKET_PATH_TOO_LONG: () =>
    'name a shorter path with --socket or QSHIM_SOCKET; the daemon has the option socket for it',
  OUTSIDE_ALLOWED_ROOTS: () =>
    "the daemon takes files only below the folders of the option allowed_roots in its configuration ('qshimd --help')",
  SOURCE_NOT_ACCESSIBLE: () =>
    'the user of the daemon must be able to read the file, and to write it unless --read-only',
  SOURCE_NOT_FOUND: () => 'the path counts on the host of the daemon',
  OUTSIDE_BOOT_ROOTS: () =>
    "the daemon boots files only below the folders of the option boot_roots in its configuration ('qshimd --help')",
  BOOT_IMAGE_NOT_FOUND: () => 'make the guest image with `npm run guest`, or name one with --kernel and --initrd',
  KVM_UNUSABLE: () => '`qshim doctor` shows why; --accelerator auto falls back to TCG',
  SANDBOX_NOT_FOUND: listSandboxes,
  VOLUME_NOT_FOUND: listVolumes,
  SANDBOX_NOT_RUNNING: (subject) => `${command('sandbox start', subject.sandboxId)} starts one that has stopped`,
  SANDBOX_NOT_PAUSED: getSandbox,
  SANDBOX_NOT_RESUMED: getSandbox,
  SANDBOX_EXISTS: (subject) => `${command('sandbox get', subject.sandboxId)} shows what it was created with`,
  VOLUME_EXISTS: (subject) =>
    `${command('volume get', subject.sandboxId, subject.volumeId)} shows what it was attached with`,
  SERIAL_IN_USE: listVolumes,
  GUEST_HOLDS_VOLUME: getVolume,
  QEMU_HOLDS_VOLUME: getVolume,
  GUEST_NOT_ASKED: (subject) => `${command('sandbox get', subject.sandboxId)} shows whether its guest agent answers`,
  VOLUME_NOT_MOUNTED: getVolume,
  VOLUME_DETACHING: getVolume,
  VOLUME_PENDING: getVolume,
  OPERATION_IN_PROGRESS: (subject) =>
    `${command('operation list', subject.sandboxId, subject.volumeId)} shows how far it is`,
  BUDGET_NOT_FOUND: () => '`qshim budget list` shows the budgets there are',
  OPERATION_NOT_FOUND: (subject) => `${command('operation list', subject.sandboxId)} shows the operations there are`,
  OPERATION_NOT_CANCELLABLE: (subject) => `${command('operation watch', subject.sandboxId)} shows when it ends`,
  GUEST_DRIVER_TIMEOUT: (subject) => `${command('sandbox console', subject.sandboxId)} shows what the guest says`,
  GUEST_AGENT_NOT_READY: getSandbox,
  VM_GONE: getSandbox,
  SOURCE_STALE_COPY: () => '`qshim volume stale list` shows the stale copies, and which ones are current',
  STALE_COPY_NOT_FOUND: () => '`qshim volume stale list` shows the stale copies',
  NO_SLOT: () => 'detach a volume; --volume-capacity sets how many a new sandbox can have',
};

/** For reasons that this version does not know. */
const BY_CODE: Readonly<Record<string, Hint>> = {
  NOT_FOUND: (subject) => (subject.volumeId === undefined ? listSandboxes(subject) : listVolumes(subject)),
  UNIMPLEMENTED: () => '`qshim doctor` shows the version of QEMU and what it can do',
};

/** One line on what to do next, or undefined when we know nothing better than the message itself. */
export function hintFor(failure: CliFailure, subject: Subject = {}): string | undefined {
  const own = isReason(failure.reason) ? BY_REASON[failure.reason] : undefined;
  return (own ?? BY_CODE[failure.code])?.(subject);
}

function command(name: string, ...ids: readonly (string | undefined)[]): string {
  return `\`${['qshim', name, ...ids.filter((id) => id !== undefined)].join(' ')}\``;
}
