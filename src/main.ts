import { access } from 'node:fs/promises';
import { flushCompileCache } from 'node:module';
import { join } from 'node:path';
import { Command } from '@commander-js/extra-typings';
import packageJson from '../package.json' with { type: 'json' };
import { monotonicMs } from './base/deadline.ts';
import { ShimError, messageOf } from './base/errors.ts';
import { HostBudget } from './base/budget.ts';
import { surviveFailedSpawns } from './base/failed-spawns.ts';
import { createLogger, errorOutput, logOutput, type Logger } from './base/log.ts';
import { ContainerdEndpoint } from './containerd/endpoint.ts';
import { Cells } from './confine/cells.ts';
import { OPTIONS, loadConfig, type Config, type OptionName } from './config.ts';
import { fileHelpers } from './files/helpers.ts';
import { AcceleratorChoice } from './qemu/accelerator.ts';
import { chooseAllocator } from './qemu/allocator.ts';
import { keepDescriptors } from './files/native.ts';
import { KeyBindings } from './keys/bindings.ts';
import { KeySources, parseKeyCommands } from './keys/sources.ts';
import { Liveness } from './api/liveness.ts';
import { ShimServer } from './api/server.ts';
import { serviceManager } from './api/service-manager.ts';
import { AuditLog } from './callers/audit.ts';
import { Gate } from './callers/gate.ts';
import { groupId, PolicyFile } from './callers/policy-file.ts';
import type { Labels } from './callers/policy.ts';
import { lockStateDirectory } from './grpc/state-lock.ts';
import { holdBootImages, type HoldBootImages } from './volume/boot-images.ts';
import { BackingClaims } from './volume/claims.ts';
import { StaleCopies } from './volume/stale-copies.ts';
import { journalProblem } from './store/journal.ts';
import { EventLog } from './store/events.ts';
import { settleDirectories } from './sandbox/directories.ts';
import { IoBudgets } from './sandbox/io-budgets.ts';
import { SandboxManager } from './sandbox/manager.ts';
import { WarmPool } from './template/pool.ts';
import { Templates } from './template/templates.ts';

/** The daemon: composition root, signals, exit code. */

const DEFAULT_CONFIG_FILE = '/etc/qshim/config.toml';
const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
const ALIVE_MS = 60_000;

async function main(): Promise<number> {
  const errors = errorOutput('qshimd');
  const { file, flags } = readFlags();
  let config: Config;
  try {
    config = await loadConfig({ file: file ?? (await ifExists(DEFAULT_CONFIG_FILE)), environment: process.env, flags });
  } catch (error) {
    errors.write(`qshimd: ${messageOf(error)}\n`);
    return EXIT_USAGE;
  }
  const output = logOutput();
  const log = createLogger(config.log_level, output);
  try {
    await serve(config, log);
    return 0;
  } catch (error) {
    log.fatal(
      { problem: messageOf(error), ...(error instanceof ShimError ? { reason: error.reason } : {}) },
      'daemon ended',
    );
    errors.write(`qshimd: ${messageOf(error)}\n`);
    return EXIT_FAILED;
  } finally {
    await Promise.all([output.flush(), errors.flush()]);
  }
}

/** Runs until a signal asks to stop, then drains. */
async function serve(options: Config, log: Logger): Promise<void> {
  // Everything that this process makes, sockets too, is for its own user only.
  process.umask(0o077);
  // A QEMU has what it was given, and nothing of whoever started the daemon.
  keepDescriptors();
  const systemd = serviceManager(process.env);
  const stop = Promise.withResolvers<NodeJS.Signals>();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stop.resolve(signal));
  await using cleanup = new AsyncDisposableStack();
  // Before there is a socket, what is waited for (the end of a process) may keep nothing open.
  const alive = setInterval(() => undefined, ALIVE_MS);
  cleanup.defer(() => clearInterval(alive));
  cleanup.use(surviveFailedSpawns(log));
  cleanup.use(await lockStateDirectory(options.state_dir));
  cleanup.use(fileHelpers).warmUp();
  const policy = cleanup.use(await openPolicy(options, log));
  const group = await groupOf(options);
  const audit = cleanup.use(await openAudit(options, log));
  const { allocator, problem } = await chooseAllocator(options.qemu_binary, options.qemu_allocator);
  log.info({ allocator, problem }, 'allocator of qemu');
  const config = { ...options, qemu_allocator: allocator };
  const limits = {
    retainedMax: config.events_retained,
    watchersMax: config.watchers_max,
    watcherQueueMax: config.watcher_queue_max,
  };
  await settleDirectories(config.state_dir, log);
  const events = await EventLog.open(join(config.state_dir, 'events.jsonl'), limits, log);
  cleanup.defer(() => events.flush());
  const accelerators = new AcceleratorChoice(config.qemu_binary, config.kvm_probe_timeout_ms);
  const probed = accelerators.kvm().then((probe) => log.info({ ...probe }, 'kvm probed'));
  // The probe has a time limit, and a directory that it removes.
  cleanup.defer(() => probed);
  const cells = await Cells.open(config, log);
  const staleCopies = await StaleCopies.open(join(config.state_dir, '.stale-copies.json'));
  const claims = new BackingClaims(staleCopies);
  const holdImages: HoldBootImages = (images, owner) => holdBootImages(claims, images, owner);
  const templates = cleanup.use(await Templates.open(config, log, cells, holdImages));
  const budgets = HostBudget.from(config);
  const pool = cleanup.use(new WarmPool(config, log, templates, budgets, cells, holdImages));
  const keys = cleanup.use(keySources(config, log));
  const ioBudgets = cleanup.use(new IoBudgets(config, log));
  const parts = {
    config,
    log,
    events,
    claims,
    staleCopies,
    budgets,
    accelerators,
    cells,
    templates,
    pool,
    keys,
    holdImages,
    ioBudgets,
  };
  const manager = new SandboxManager(parts);
  await manager.start();
  cleanup.defer(() => manager.release());
  const labelsOf = (sandboxId: string): Labels | undefined => manager.labelsOf(sandboxId)?.labels;
  const gate = new Gate({ policy, audit, labelsOf });
  const server = new ShimServer({ manager, config, log, gate, policy, audit, group });
  cleanup.defer(() => server.drain());
  if (config.containerd_socket !== '') {
    cleanup.use(await ContainerdEndpoint.open(manager, { config, log, gate, group }));
  }
  await server.listen();
  systemd.ready();
  const liveness = new Liveness({ journalProblem });
  cleanup.use(
    liveness.watch((vitals) => {
      server.tell(vitals);
      // To be started again helps one that is stuck, and no journal that cannot be written.
      if (vitals.stuck === undefined) systemd.alive(monotonicMs());
    }),
  );
  // Kept by Node at a regular end only, and a daemon may never see one (bin/qshimd names the place).
  flushCompileCache();
  const signal = await stop.promise;
  log.info({ signal }, 'draining');
  systemd.stopping();
}

async function openPolicy(config: Config, log: Logger): Promise<PolicyFile> {
  const everyMs = config.reload_check_ms;
  return await PolicyFile.open(config.policy, { roots: [...config.allowed_roots, ...config.boot_roots], everyMs, log });
}

/** Id of the group whose members may connect. @throws ShimError INVALID_ARGUMENT / INVALID_CONFIG */
async function groupOf(config: Config): Promise<number | undefined> {
  return config.socket_group === '' ? undefined : await groupId(config.socket_group);
}

async function openAudit(config: Config, log: Logger): Promise<AuditLog> {
  return await AuditLog.open({
    path: join(config.state_dir, '.audit.jsonl'),
    bytesMax: config.audit_bytes_max,
    required: config.audit_required === 'on',
    log,
  });
}

function keySources(config: Config, log: Logger): KeySources {
  return new KeySources({
    log,
    directories: config.key_directories,
    environmentNames: config.key_environment,
    commands: parseKeyCommands(config.key_commands),
    bindings: keyBindings(config),
    timeoutMs: config.key_timeout_ms,
    credentialsDirectory: process.env['CREDENTIALS_DIRECTORY'],
    environment: process.env,
    clevis: config.clevis_binary,
  });
}

/** @throws ShimError INVALID_ARGUMENT / INVALID_CONFIG */
function keyBindings(config: Config): KeyBindings {
  try {
    return new KeyBindings(config.key_bindings);
  } catch (error) {
    throw new ShimError('INVALID_ARGUMENT', `key_bindings: ${messageOf(error)}`, {
      reason: 'INVALID_CONFIG',
      cause: error,
    });
  }
}

function readFlags(): { file: string | undefined; flags: Partial<Record<OptionName, string>> } {
  const command = new Command('qshimd')
    .description('Runs QEMU sandbox VMs and hot-plugs volumes into them, over gRPC on a unix socket.')
    .option('--config <file>', `TOML file with the options below (default: ${DEFAULT_CONFIG_FILE} if it exists)`)
    .version(packageJson.version, '--version', 'print the version')
    .addHelpText(
      'after',
      '\nEvery option can also be set as QSHIM_NAME in the environment, or as name in the TOML file. Flags win over the\n' +
        'environment, the environment over the file. docs/config.md lists all of them.\n' +
        '\nSIGTERM drains and exits with 0; the VMs go on running, and the next daemon takes them over.\n' +
        'Exit codes: 0 stopped on request, 1 failed, 2 wrong usage or configuration.',
    );
  for (const option of OPTIONS) {
    const shown = Array.isArray(option.defaultValue) ? option.defaultValue.join(',') : String(option.defaultValue);
    command.option(`${option.flag} <value>`, `${option.description} [${shown}]`);
  }
  command.exitOverride((error) => {
    process.exit(error.exitCode === 0 ? 0 : EXIT_USAGE);
  });
  command.parse();
  const values: Readonly<Record<string, unknown>> = command.opts();
  const flags: Partial<Record<OptionName, string>> = {};
  for (const option of OPTIONS) {
    const value = values[camelCase(option.name)];
    if (typeof value === 'string') flags[option.name] = value;
  }
  return { file: typeof values.config === 'string' ? values.config : undefined, flags };
}

function camelCase(name: string): string {
  return name.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

async function ifExists(path: string): Promise<string | undefined> {
  try {
    await access(path);
    return path;
  } catch {
    return undefined;
  }
}

// Everything is closed by now; a client that only holds its connection open must not keep the process.
process.exit(await main());
