import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parse as parseToml } from 'smol-toml';
import { z } from 'zod';
import { ShimError, messageOf } from './base/errors.ts';
import { parseSize } from './base/sizes.ts';
import { LOG_LEVELS } from './base/log.ts';
import { SOCKET_PATH_BYTES_MAX, pathBytes } from './base/socket-path.ts';
import { STATS_PERIOD_MS_MIN } from './volume/stats/rates.ts';
import { VOLUME_CAPACITY_MAX } from './volume/model/slots.ts';

/**
 * The daemon's options: one table, from which the TOML file, the environment, the flags, `qshimd --help` and
 * docs/config.md all follow. Later sources win: file, then environment (QSHIM_NAME), then flags (--name).
 */

/** How a sandbox may start: see TemplateUse in proto/qshim/v1/sandboxes.proto. */
export const TEMPLATE_USES = ['auto', 'off', 'required'] as const;

export const projectRoot = join(import.meta.dirname, '..');

/** What becomes of a volume whose lease has ended, and which its guest holds: volume/leases.ts. */
export const LEASE_FENCES = ['off', 'force'] as const;

/** How QEMU is confined: confine/facts.ts. */
export const CONFINE_LEVELS = ['full', 'degraded', 'off'] as const;
/** Beyond it lie -1 and what some programs take for negative. */
const UID_MAX = 2_147_483_646;
const UID_MIN = 1000;

function isUidRange(text: string): boolean {
  const [first = 0, last = 0] = text.split('-').map(Number);
  return first >= UID_MIN && first <= last && last <= UID_MAX;
}

const absolutePath = z.string().startsWith('/', 'must be an absolute path');
const MEBIBYTE = 1024 * 1024;
/** Bytes, not characters: the kernel counts those. */
const pathOfBytes = (bytesMax: number, why: string): z.ZodString =>
  absolutePath.refine((path) => pathBytes(path) <= bytesMax, {
    error: ({ input }) => `has ${pathBytes(String(input))} bytes, at most ${bytesMax} are allowed: ${why}`,
  });
const SOCKETS_BELOW = 'unix sockets lie below it, and they may have no longer paths';
const socketPath = pathOfBytes(SOCKET_PATH_BYTES_MAX, 'a unix socket may have no longer path');
/** The relay listens on a second socket beside it (relay/control.ts). */
const CONTAINERD_SOCKET_BYTES_MAX = SOCKET_PATH_BYTES_MAX - '.ttrpc'.length;
/** Of what lies below it: /36 characters of an id/uevents.sock, or a hash in place of a longer id. */
const STATE_DIR_BYTES_MAX = 60;
const TEMPLATES_DIR_BYTES_MAX = 50;
/** Below it: /64 digits of a pod's id/shim-monitor.sock. */
const KATA_DIRECTORY_BYTES_MAX = 24;

const milliseconds = z.int().min(1).max(86_400_000);
const count = z.int().min(1).max(1_000_000);
const rate = z
  .int()
  .min(100)
  .max(2 ** 40);
const bytes = z
  .int()
  .min(4096)
  .max(2 ** 31);

const onOff = z.enum(['off', 'on']);

const configSchema = z.strictObject({
  socket: socketPath
    .default('/run/qshim/qshim.sock')
    .describe(
      `Unix socket of the gRPC API; mode 0600, its directory 0700. Its path may have ${SOCKET_PATH_BYTES_MAX} bytes.`,
    ),
  socket_group: z
    .string()
    .max(256)
    .default('')
    .describe(
      'Group, by name or number, whose members may connect too: the socket then has mode 0660, its directory 0710. Needs `policy`; empty: nobody but the user of the daemon, and root.',
    ),
  policy: z
    .union([z.literal(''), absolutePath])
    .default('')
    .describe(
      'TOML file that says which users, groups and certificates may do what (docs/policy.md); empty: whoever may open the socket may do everything. Taken up again whenever it changes.',
    ),
  tls_listen: z
    .union([
      z.literal(''),
      z.string().regex(/^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$/, 'must be HOST:PORT'),
    ])
    .default('')
    .describe(
      'HOST:PORT on which the API is served over TLS too, to callers with a certificate, [ADDRESS]:PORT for IPv6. Needs `policy`; empty: not over TCP.',
    ),
  tls_cert: absolutePath
    .default('/etc/qshim/tls/server-cert.pem')
    .describe("The daemon's certificate for `tls_listen`, with the chain above it; PEM."),
  tls_key: absolutePath
    .default('/etc/qshim/tls/server-key.pem')
    .describe('Its key, which nobody but the daemon may be able to read; PEM.'),
  tls_client_ca: absolutePath
    .default('/etc/qshim/tls/client-ca.pem')
    .describe(
      "Authorities whose certificates `tls_listen` takes as callers'; PEM. Taken up again as cert and key are.",
    ),
  reload_check_ms: milliseconds
    .default(2000)
    .describe('How often `policy` and the files of `tls_listen` are looked at for changes.'),
  reflection: onOff
    .default('off')
    .describe('Whether the API tells of itself by gRPC server reflection: `on` or `off`.'),
  audit_required: onOff
    .default('off')
    .describe(
      '`on`: calls that change something are refused while the audit log cannot be written. `off`: they go on, and log and health say so.',
    ),
  audit_bytes_max: bytes
    .default(16_777_216)
    .describe('Size at which `.audit.jsonl` in `state_dir` becomes `.audit.jsonl.1`, in place of the last one.'),
  state_dir: pathOfBytes(STATE_DIR_BYTES_MAX, SOCKETS_BELOW)
    .default('/run/qshim/state')
    .describe(
      `Directory of the daemon's state; below it, each sandbox has a directory with its state file, sockets and console log. Its path may have ${STATE_DIR_BYTES_MAX} bytes: the sockets lie below it.`,
    ),
  cache_dir: absolutePath
    .default('/var/cache/qshim')
    .describe('Directory for what can be made again, such as the schema of a QEMU binary.'),
  containerd_socket: z
    .union([
      z.literal(''),
      pathOfBytes(CONTAINERD_SOCKET_BYTES_MAX, 'a second socket, .ttrpc, lies beside it, and may have no longer path'),
    ])
    .default('')
    .describe(
      `Unix socket on which containerd finds its sandbox Controller and Task services, of at most ${CONTAINERD_SOCKET_BYTES_MAX} bytes; empty: containerd isn't served.`,
    ),
  containerd_address: socketPath
    .default('/run/containerd/containerd.sock')
    .describe("containerd's own socket, to which events are forwarded."),
  containerd_annotations: z
    .array(z.string().regex(/^[a-z*-]+$/, 'must be what stands behind io.qshim., with * for any characters'))
    .default([])
    .describe(
      'Annotations that pods may use, each as what stands behind `io.qshim.`, with `*` for any characters; a pod with another one is refused.',
    ),
  containerd_memory_min_mib: z
    .int()
    .min(64)
    .max(4_194_304)
    .default(192)
    .describe(
      'Least guest memory in MiB of a pod whose limits and overhead come to less. The reference guest boots with 144.',
    ),
  containerd_events_max: count
    .default(4096)
    .describe(
      'Events that may wait for containerd while it is away; then the oldest are dropped, and the log says so.',
    ),
  containerd_direct_volumes: absolutePath
    .default('/run/kata-containers/shared/direct-volumes')
    .describe("Directory with Kata's records of direct-assigned volumes (`kata-runtime direct-volume add`)."),
  containerd_kata_directory: z
    .union([z.literal(''), pathOfBytes(KATA_DIRECTORY_BYTES_MAX, SOCKETS_BELOW)])
    .default('')
    .describe(
      "Directory below which `kata-ctl direct-volume` (`/run/kata`) or `kata-runtime direct-volume` (`/run/vc/sbs`, or that) looks for a sandbox's socket; empty: they aren't served.",
    ),
  log_level: z
    .enum(LOG_LEVELS)
    .default('info')
    .describe(`Least severe level to log: ${LOG_LEVELS.join(', ')}.`),
  qemu_binary: z
    .string()
    .min(1)
    .default('qemu-system-x86_64')
    .describe('QEMU binary, a path or a name on PATH; 7.2 or newer.'),
  qemu_allocator: z
    .union([z.enum(['auto', 'system']), absolutePath.regex(/^[^\s:]+$/, 'may hold neither spaces nor colons')])
    .default('auto')
    .describe(
      'Memory allocator that is preloaded into QEMU: `auto` takes tcmalloc or jemalloc where the host has one and QEMU runs with it, `system` adds none, or the path of a library. Disks come and go up to twice as fast with one.',
    ),
  confine: z
    .enum(CONFINE_LEVELS)
    .default('degraded')
    .describe(
      'Whether each QEMU runs confined: `degraded` starts a sandbox with the walls that this host has and says which are missing, `full` refuses to start it when one is missing, `off` runs QEMU as the daemon. Choose `full` where the host has them all. docs/security.md says what they are.',
    ),
  confine_uids: z
    .string()
    .regex(/^[0-9]{1,10}-[0-9]{1,10}$/, 'must be FIRST-LAST')
    .refine(isUidRange, `must be a range of ids from 1000 to ${UID_MAX}`)
    .default('1900000000-1900065535')
    .describe(
      'User ids, FIRST-LAST, of which each confined QEMU gets one for itself, and the group of the same number. Nobody else may have them.',
    ),
  confine_memory_overhead_mib: z
    .int()
    .min(64)
    .max(1_048_576)
    .default(768)
    .describe(
      "MiB that the control group of a confined QEMU allows beside its guest's memory: QEMU's own, and the page cache of its volumes. Without KVM, 1024 MiB for translated code come on top.",
    ),
  confine_io_max: z
    .array(z.string().regex(/^[0-9]+:[0-9]+( (r|w)(bps|iops)=[0-9]+)+$/, 'must be a line of io.max'))
    .default([])
    .describe(
      'Lines for io.max of the control group of each confined QEMU, such as `8:0 rbps=104857600 wiops=2000`; none: no limit.',
    ),
  kernel: absolutePath
    .default(join(projectRoot, 'build/guest/vmlinuz'))
    .describe('Guest kernel for sandboxes that name none.'),
  initrd: absolutePath
    .default(join(projectRoot, 'build/guest/initrd.img'))
    .describe('Initial ramdisk for sandboxes that name none.'),
  kernel_parameters: z
    .string()
    .max(1024)
    .default(
      'console=ttyS0 quiet panic=-1 cryptomgr.notests ' +
        'rcupdate.rcu_expedited=1 rcu_nocbs=all rcutree.jiffies_till_first_fqs=0',
    )
    .describe('Kernel parameters of every sandbox; a sandbox adds its own behind them.'),
  allowed_roots: z
    .array(absolutePath)
    .min(1)
    .default(['/var/lib/qshim/volumes'])
    .describe('Directories below which volumes named by callers must lie, symbolic links resolved.'),
  boot_roots: z
    .array(absolutePath)
    .default([join(projectRoot, 'build/guest'), '/usr/share/qshim/boot', '/var/lib/qshim/boot'])
    .describe(
      'Directories below which kernels and ramdisks named by callers must lie, symbolic links resolved, writable by root and the daemon alone. No volume may write there.',
    ),
  source_timeout_ms: milliseconds
    .default(10_000)
    .describe(
      'For how long the file system of a file that a caller names may give no sign of life when it is looked at.',
    ),
  nbd_hosts: z
    .array(z.string().regex(/^[A-Za-z0-9._:[\]-]+$/, 'must be HOST or HOST:PORT'))
    .default([])
    .describe(
      'Hosts whose NBD exports callers may attach over TCP, each as HOST or HOST:PORT, [ADDRESS]:PORT for IPv6; compared as they are spelled.',
    ),
  nbd_tls_directory: absolutePath
    .default('/etc/qshim/nbd-tls')
    .describe(
      'Directory with a subdirectory for each name of TLS credentials for NBD: ca-cert.pem, client-cert.pem, client-key.pem.',
    ),
  vcpus: z.int().min(1).max(255).default(1).describe('Virtual CPUs of sandboxes that name none.'),
  memory_mib: z
    .int()
    .min(64)
    .max(4_194_304)
    .default(512)
    .describe('Guest memory in MiB of sandboxes that name none. The reference guest boots with 144, and not with 128.'),
  volume_capacity: z
    .int()
    .min(1)
    .max(VOLUME_CAPACITY_MAX)
    .default(155)
    .describe(`Volumes attached at once in sandboxes that name no capacity, at most ${VOLUME_CAPACITY_MAX}.`),
  template: z
    .enum(TEMPLATE_USES)
    .default('auto')
    .describe(
      'How sandboxes start that do not say: auto (as a clone of a template when there is one; a missing one is made in the background), off, required.',
    ),
  templates_dir: pathOfBytes(TEMPLATES_DIR_BYTES_MAX, SOCKETS_BELOW)
    .default('/dev/shm/qshim-templates')
    .describe(
      `Directory of the templates, but for their memory, which has no path. Mode 0700. Its path may have ${TEMPLATES_DIR_BYTES_MAX} bytes.`,
    ),
  templates_bytes_max: z
    .int()
    .min(1_048_576)
    .default(4_294_967_296)
    .describe('Memory that all templates together may take; those that were not used for longest make room.'),
  template_timeout_ms: milliseconds
    .default(180_000)
    .describe('How long the making of a template may take, from the start of its VM to its saved state.'),
  template_delay_ms: milliseconds
    .default(2000)
    .describe('How long after the start of a sandbox the making of its template begins in the background.'),
  template_free_mib: z
    .int()
    .min(0)
    .default(512)
    .describe(
      "Available memory in MiB that the host must keep beside a new template's guest memory; else none is made.",
    ),
  clone_timeout_ms: milliseconds
    .default(10_000)
    .describe(
      'How long a clone may take from the start of QEMU to the answer of its guest agent, before it counts as failed.',
    ),
  iothreads: z
    .int()
    .min(0)
    .max(64)
    .default(0)
    .describe("Threads of QEMU that serve the volumes of sandboxes that name no number; 0: QEMU's main loop does."),
  pool_size: z
    .int()
    .min(0)
    .max(1024)
    .default(0)
    .describe('Clones that are kept ready for each kind of sandbox that was asked for; 0: no warm pool.'),
  pool_max: count
    .default(8)
    .describe('Clones that are kept ready in all; kinds that were asked for longest ago make room.'),
  kvm_probe_timeout_ms: milliseconds
    .default(2000)
    .describe('How long a tiny payload may take under KVM before KVM counts as unusable.'),
  boot_timeout_ms: milliseconds
    .default(120_000)
    .describe('From the start of QEMU to the first answer of the guest agent.'),
  attach_timeout_ms: milliseconds
    .default(30_000)
    .describe("How long the guest's driver may take to come up on a new volume."),
  detach_timeout_ms: milliseconds
    .default(30_000)
    .describe('How long Detach waits for the guest to let go before it answers DEADLINE_EXCEEDED.'),
  batch_volume_ms: milliseconds
    .default(1000)
    .describe(
      'How much longer AttachMany and DetachMany wait for each of their volumes with every further volume that they name.',
    ),
  unplug_retry_ms: milliseconds
    .default(1000)
    .describe(
      'How long nothing must have moved in a VM before its guest is asked again to let go of a volume; doubles with each time, up to unplug_retry_max_ms.',
    ),
  unplug_retry_max_ms: milliseconds.default(5000).describe('The longest that it grows to.'),
  lease_warn_ms: milliseconds
    .default(60_000)
    .describe('How long before the end of a lease an event tells of it; of short leases half their length.'),
  lease_grace_ms: milliseconds
    .default(60_000)
    .describe(
      'How long after its start the daemon lets every lease last at least, so that those that ended while it was away can be renewed.',
    ),
  lease_retry_ms: milliseconds
    .default(10_000)
    .describe(
      'When the guest is asked again for a volume whose lease has ended and that it holds; doubles with each time, up to lease_retry_max_ms.',
    ),
  lease_retry_max_ms: milliseconds.default(300_000).describe('The longest that it grows to.'),
  lease_fence: z
    .enum(LEASE_FENCES)
    .default('off')
    .describe(
      '`off`: a volume whose lease has ended stays for as long as its guest holds it. `force`: it is taken all the same, lease_fence_ms after an event has said so; what the guest has not written is lost.',
    ),
  lease_fence_ms: milliseconds.default(300_000).describe('How long before it is taken by force an event says so.'),
  mount_timeout_ms: milliseconds
    .default(120_000)
    .describe('How long formatting and mounting, or unmounting, may take in the guest.'),
  no_space_retry_ms: milliseconds
    .default(1000)
    .describe('How often room is looked for when a VM has paused because a volume could not grow.'),
  no_space_free_bytes: bytes
    .default(16_777_216)
    .describe('Free bytes on the file system of such a volume that let its VM go on.'),
  key_directories: z
    .array(absolutePath)
    .default([])
    .describe('Directories below which key files and JWE files named by callers must lie, symbolic links resolved.'),
  key_environment: z
    .array(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'is not the name of an environment variable'))
    .default([])
    .describe(
      'Environment variables of the daemon that hold keys, taken out of it at the start. Less safe than files: see docs/encryption.md.',
    ),
  key_commands: z
    .array(z.string().regex(/^[A-Za-z0-9_.-]+=\/[^\0]*$/, 'must be NAME=/PROGRAM ARGUMENT ...'))
    .default([])
    .describe(
      'Commands that print a key, each as NAME=/PROGRAM ARGUMENT ..., cut at blanks; callers know only the names.',
    ),
  key_bindings: z
    .array(z.string())
    .default([])
    .describe(
      'What keys may be used for, each as REFERENCE kind=host_luks|guest_luks2 label=NAME=VALUE uuid=UUID: `file:/etc/qshim/keys/a* kind=host_luks label=tenant=a`. A key that none names is not bound. See docs/encryption.md.',
    ),
  key_timeout_ms: milliseconds.default(10_000).describe('How long a source may take to give a key.'),
  clevis_binary: absolutePath
    .default('/usr/bin/clevis')
    .describe('The clevis program, which opens keys that are bound to a Tang server.'),
  secret_dir: absolutePath
    .default('/dev/shm')
    .describe('Directory in memory (tmpfs or ramfs) through which the key of a key for QEMU passes, for a moment.'),
  empty_scan_bytes_max: z
    .int()
    .min(0)
    .max(2 ** 50)
    .default(17_179_869_184)
    .describe(
      'Largest source that is read from end to end to prove that it is empty, before it is encrypted or formatted.',
    ),
  console_bytes_max: bytes
    .default(16_777_216)
    .describe("Size at which a sandbox's console.log or qemu.log is cut; half of it stays, in a second file."),
  console_check_ms: milliseconds.default(5000).describe('How often the size of these logs is looked at.'),
  stop_timeout_ms: milliseconds
    .default(10_000)
    .describe('Deadline of each graceful step of Stop: the agent first, then the ACPI power button.'),
  kill_timeout_ms: milliseconds.default(5000).describe('Deadline for QEMU to be gone after it was killed.'),
  qmp_reply_timeout_ms: milliseconds.default(20_000).describe('How long QEMU may take to reply to one QMP command.'),
  qmp_heartbeat_ms: milliseconds
    .default(10_000)
    .describe(
      'How often QEMU is asked whether it answers; one that does not within qmp_reply_timeout_ms is unresponsive.',
    ),
  stats_period_ms: z
    .int()
    .min(0)
    .max(86_400_000)
    .refine((period) => period === 0 || period >= STATS_PERIOD_MS_MIN, {
      error: `must be 0 or at least ${STATS_PERIOD_MS_MIN}`,
    })
    .default(10_000)
    .describe(
      `How often QEMU is asked what it has counted of all volumes of a sandbox, at least ${STATS_PERIOD_MS_MIN}; 0: only when a caller asks.`,
    ),
  stats_histograms: onOff
    .default('on')
    .describe('Whether QEMU counts how long requests of each volume take, by latency: `on` or `off`.'),
  io_budget_period_ms: milliseconds
    .default(1000)
    .describe('How often budgets of I/O are split anew, by what their volumes use.'),
  qmp_line_bytes_max: bytes.default(16_777_216).describe('Longest line that QEMU may send over QMP.'),
  qmp_pending_max: count.default(1024).describe('QMP commands of one sandbox that may wait for their replies at once.'),
  agent_timeout_ms: milliseconds.default(10_000).describe('How long the guest agent may take to answer one request.'),
  agent_line_bytes_max: bytes
    .default(50_331_648)
    .describe(
      'Longest line that the guest agent may send. Of a command with output no more is kept than the output may have, of others 64 KiB, of lists 1 MiB.',
    ),
  guest_bytes_per_second_max: rate
    .default(4_194_304)
    .describe(
      'What the daemon reads and understands of one guest (agent, announcements, QMP events), in bytes a second; eight seconds of it at once. Beyond it the guest waits.',
    ),
  guest_lines_per_second_max: rate
    .default(1000)
    .describe('The same in lines, messages or reads, of which each costs the daemon some microseconds.'),
  guest_stream_bytes_per_second_max: rate
    .default(33_554_432)
    .describe('What the daemon passes on of one guest (output of commands and containers), in bytes a second.'),
  guests_bytes_per_second_max: rate
    .default(33_554_432)
    .describe('guest_bytes_per_second_max of all guests together; each keeps a sixteenth of its own beside it.'),
  guests_lines_per_second_max: rate
    .default(8000)
    .describe('guest_lines_per_second_max of all guests together, likewise.'),
  guests_stream_bytes_per_second_max: rate
    .default(134_217_728)
    .describe('guest_stream_bytes_per_second_max of all guests together, likewise.'),
  agent_queue_max: count.default(256).describe('Requests that may wait for one guest agent at once.'),
  exec_timeout_ms: milliseconds
    .default(30_000)
    .describe('How long a command run by Exec may take when the caller says nothing.'),
  exec_output_bytes_max: bytes
    .default(1_048_576)
    .describe(
      'Most bytes of output that Exec answers with, each stream; the rest is cut off. They are taken in one piece, which holds all other calls up for some 10 ms a MiB: ExecStream has no limit.',
    ),
  exec_max: count.default(16).describe('Commands that Exec may run at once in one sandbox.'),
  guest_ports_max: z
    .int()
    .min(31)
    .max(511)
    .default(127)
    .describe(
      'Virtio-serial ports of a new sandbox: two of its own, one for events, and one for each stream of a container.',
    ),
  container_processes_max: count
    .default(64)
    .describe('Containers and further processes in them that one sandbox may have.'),
  container_timeout_ms: milliseconds
    .default(60_000)
    .describe('How long one step of a container (create, start, kill, delete) may take in the guest.'),
  sandboxes_max: count.default(256).describe('Sandboxes that may exist at once.'),
  device_queue_max: count.default(32).describe('Callers that may wait for one volume at once.'),
  removed_retained: count
    .default(256)
    .describe('Removed volumes that each sandbox remembers for Get, List and repeated Detach.'),
  events_retained: count.default(4096).describe('Past events that a watcher can still ask for.'),
  batch_max: count.default(256).describe('Volumes that one AttachMany, DetachMany or Plan may name.'),
  calls_max: count
    .default(1024)
    .describe('Calls that may be in progress at once; further ones answer RESOURCE_EXHAUSTED.'),
  watchers_max: count.default(256).describe('Watch, console and command streams that may be open at once.'),
  watcher_queue_max: count
    .default(2048)
    .describe('Events that may wait for one slow watcher before its stream ends with RESOURCE_EXHAUSTED.'),
  connections_max: count.default(1024).describe('Connections to the API that may be open at once.'),
  caller_connections_max: count
    .default(128)
    .describe('Connections that one caller, a user or a certificate, may have open at once.'),
  caller_calls_max: count
    .default(512)
    .describe('Calls that one caller may have in progress at once; further ones answer RESOURCE_EXHAUSTED.'),
  caller_watchers_max: count
    .default(128)
    .describe('Watch, console and command streams that one caller may have open at once.'),
  connection_idle_ms: milliseconds.default(300_000).describe('A connection without a call for so long is ended.'),
  keepalive_ms: milliseconds
    .default(60_000)
    .describe('How often a silent caller is asked whether it is there (HTTP/2 PING).'),
  keepalive_timeout_ms: milliseconds
    .default(20_000)
    .describe('A caller that does not answer that for so long loses its connection.'),
  request_bytes_max: bytes.default(262_144).describe('Longest gRPC request.'),
  request_timeout_ms: milliseconds.default(10_000).describe('How long a caller may take to send a request whole.'),
  unfinished_bytes_max: bytes
    .default(33_554_432)
    .describe('Memory that requests may take which have not come whole; one caller may have half of it.'),
  drain_timeout_ms: milliseconds
    .default(10_000)
    .describe('After SIGTERM: how long calls in progress may take to end before the daemon exits.'),
});

/** The validated options; names are those of the TOML file. */
export type Config = Readonly<z.infer<typeof configSchema>>;
export type OptionName = keyof Config;

export interface OptionInfo {
  readonly name: OptionName;
  readonly flag: string;
  readonly environment: string;
  readonly description: string;
  readonly defaultValue: Config[OptionName];
}

/** Every option with its names, default and description. */
export const OPTIONS: readonly OptionInfo[] = Object.entries(configSchema.shape).map(([name, schema]) => ({
  // Object.entries forgets that the keys of the shape are the option names.
  name: name as OptionName,
  flag: `--${name.replaceAll('_', '-')}`,
  environment: `QSHIM_${name.toUpperCase()}`,
  description: schema.description ?? '',
  defaultValue: schema.parse(undefined),
}));

export interface ConfigSources {
  /** Path of a TOML file; undefined reads none. */
  readonly file: string | undefined;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Flag values by option name, as strings. */
  readonly flags: Partial<Readonly<Record<OptionName, string>>>;
}

/**
 * Reads and validates the configuration once.
 * @throws ShimError INVALID_ARGUMENT / INVALID_CONFIG that names each wrong option, its value and where it came from
 */
export async function loadConfig(sources: ConfigSources): Promise<Config> {
  const values: Record<string, unknown> = {};
  const origins: Record<string, string> = {};
  if (sources.file !== undefined) {
    for (const [name, value] of Object.entries(await readTomlFile(sources.file))) {
      values[name] = (typeof value === 'string' ? sizeFrom(name, value) : undefined) ?? value;
      origins[name] = sources.file;
    }
  }
  for (const option of OPTIONS) {
    const fromEnvironment = sources.environment[option.environment];
    if (fromEnvironment !== undefined) {
      values[option.name] = fromString(option, fromEnvironment);
      origins[option.name] = option.environment;
    }
    const fromFlag = sources.flags[option.name];
    if (fromFlag !== undefined) {
      values[option.name] = fromString(option, fromFlag);
      origins[option.name] = option.flag;
    }
  }
  return validate(values, origins);
}

/** The configuration with every default, and `changes` on top; for tests and tools. */
export function configWith(changes: Partial<Config>): Config {
  return validate({ ...changes }, {});
}

function validate(values: Record<string, unknown>, origins: Record<string, string>): Config {
  const parsed = configSchema.safeParse(values);
  if (parsed.success) return checkTogether(parsed.data);
  const problems = parsed.error.issues.map((issue) => {
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((key) => `${key} (from ${origins[key] ?? 'the program'}) is not an option`).join('; ');
    }
    const name = String(issue.path[0]);
    return `${name} = ${JSON.stringify(values[name])} (from ${origins[name] ?? 'the program'}): ${issue.message}`;
  });
  throw new ShimError('INVALID_ARGUMENT', `invalid configuration: ${problems.join('; ')}`, {
    reason: 'INVALID_CONFIG',
  });
}

/** What an option needs of another. */
function checkTogether(config: Config): Config {
  for (const name of ['socket_group', 'tls_listen'] as const) {
    if (config[name] === '' || config.policy !== '') continue;
    throw new ShimError(
      'INVALID_ARGUMENT',
      `invalid configuration: ${name} needs policy: without one, each of those callers could do everything`,
      { reason: 'INVALID_CONFIG' },
    );
  }
  return config;
}

async function readTomlFile(path: string): Promise<Record<string, unknown>> {
  try {
    return parseToml(await readFile(path, 'utf8'));
  } catch (error) {
    throw new ShimError('INVALID_ARGUMENT', `cannot read the configuration file ${path}: ${messageOf(error)}`, {
      reason: 'INVALID_CONFIG',
      metadata: { path },
      cause: error,
    });
  }
}

/** Environment and flags carry strings; the default's type tells what is meant. Lists are separated by commas. */
function fromString(option: OptionInfo, text: string): unknown {
  const size = sizeFrom(option.name, text);
  if (size !== undefined) return size;
  if (typeof option.defaultValue === 'number') return text.trim() === '' ? text : Number(text);
  if (Array.isArray(option.defaultValue)) return text.split(',').filter((part) => part !== '');
  return text;
}

/** Options that are sizes take them with a unit as well: `memory_mib` 2G, `console_bytes_max` 16M. */
function sizeFrom(name: string, text: string): number | undefined {
  const size = parseSize(text);
  if (size?.unit !== true) return undefined;
  if (/_bytes(_max)?$/.test(name)) return size.bytes;
  return name.endsWith('_mib') ? size.bytes / MEBIBYTE : undefined;
}
