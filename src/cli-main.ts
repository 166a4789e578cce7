/** Composition root of the `qshim` command: the process on one side, src/cli and src/doctor on the other. */
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import packageJson from '../package.json' with { type: 'json' };
import { messageOf } from './base/errors.ts';
import { Interrupted } from './cli/cli-failure.ts';
import { EXIT } from './cli/exit-codes.ts';
import { runCli } from './cli/program.ts';
import type { DoctorOptions } from './cli/session.ts';
import type { Config } from './config.ts';
import type { Finding } from './doctor/finding.ts';

const CONFIG_FILE = '/etc/qshim/config.toml';
const SIGTERM_EXIT_CODE = 143;
const KEEP_ALIVE_INTERVAL_MS = 60_000;

/** Loaded only when asked for: the configuration, execa and QMP are half of what there is to load. */
async function doctor({
  socketPath,
  configFile,
  containerdConfig,
  signal,
}: DoctorOptions): Promise<readonly Finding[]> {
  const [{ loadConfig, configWith }, { examineHost }, { silentLogger }] = await Promise.all([
    import('./config.ts'),
    import('./doctor/host.ts'),
    import('./base/log.ts'),
  ]);
  const file = configFile ?? (existsSync(CONFIG_FILE) ? CONFIG_FILE : undefined);
  const findings: Finding[] = [];
  let config = configWith({});
  try {
    config = await loadConfig({ file, environment: process.env, flags: {} });
    findings.push({ check: 'configuration', status: 'ok', detail: file ?? 'defaults and QSHIM_* variables' });
  } catch (error) {
    findings.push({
      check: 'configuration',
      status: 'failure',
      detail: messageOf(error),
      remedy: 'see docs/config.md',
    });
  }
  if (config.policy !== '') findings.push(await examinePolicy(config));
  // Child processes that a check has let go of do not keep this process alive until their end was seen.
  const alive = setInterval(() => undefined, KEEP_ALIVE_INTERVAL_MS);
  using _ = { [Symbol.dispose]: () => clearInterval(alive) };
  const host = await examineHost({
    qemuBinary: config.qemu_binary,
    kernel: config.kernel,
    initrd: config.initrd,
    stateDir: config.state_dir,
    socketDir: dirname(socketPath),
    allowedRoots: config.allowed_roots,
    memoryMib: config.memory_mib,
    qemuAllocator: config.qemu_allocator,
    confine: config.confine,
    confineUids: config.confine_uids,
    kvmProbeTimeoutMs: config.kvm_probe_timeout_ms,
    log: silentLogger(),
    signal,
  });
  if (containerdConfig === undefined) return [...findings, ...host];
  const { examineContainerd } = await import('./doctor/containerd-checks.ts');
  const containerd = await examineContainerd({
    configFile: containerdConfig,
    containerdSocket: config.containerd_socket,
    containerdAddress: config.containerd_address,
    allowedRoots: config.allowed_roots,
    path: process.env.PATH ?? '',
  });
  return [...findings, ...host, ...containerd];
}

/** Whether the policy file can be used, as the daemon would read it. */
async function examinePolicy(config: Config): Promise<Finding> {
  const check = 'policy';
  const { readPolicy } = await import('./callers/policy-file.ts');
  try {
    const { hasAdmin } = await readPolicy(config.policy, [...config.allowed_roots, ...config.boot_roots]);
    if (hasAdmin) return { check, status: 'ok', detail: config.policy };
    const remedy = 'give the role admin to somebody, without sandboxes, to make and end what others have left';
    return { check, status: 'warning', detail: 'no rule gives admin for all sandboxes', remedy };
  } catch (error) {
    return { check, status: 'failure', detail: messageOf(error), remedy: 'see docs/policy.md' };
  }
}

const interruption = new AbortController();
// `once`: a second Ctrl-C finds no handler any more and ends the process at once.
process.once('SIGINT', () => {
  interruption.abort(new Interrupted(EXIT.interrupted));
});
process.once('SIGTERM', () => {
  interruption.abort(new Interrupted(SIGTERM_EXIT_CODE));
});
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', () => {
    interruption.abort(new Interrupted(EXIT.brokenPipe));
  });
}

const exitCode = await runCli(process.argv.slice(2), {
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  cwd: process.cwd(),
  version: packageJson.version,
  signal: interruption.signal,
  doctor,
});
// Set, not exit(): output that is still on its way to a pipe gets out first.
process.exitCode = exitCode;
