/**
 * `npm run demo`: the main job from beginning to end, on a real VM: a volume is attached, formatted, written, detached,
 * found on the host, attached again read-only and read. Leaves nothing behind.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir, mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import type { Sandbox } from '../src/grpc/generated/qshim/v1/Sandbox.ts';
import { ensureTestTools } from './lib/prepare.ts';

const root = join(import.meta.dirname, '..');
const MIB = 1024 * 1024;
const VOLUME_BYTES = 64 * MIB;
const SECRET = 'qshim was here';
const DAEMON_START_MS = 20_000;

const steps: { readonly what: string; readonly milliseconds: number }[] = [];

/** Tells what happens, does it, and takes the time. */
async function step<T>(what: string, act: () => Promise<T>): Promise<T> {
  const started = performance.now();
  const result = await act();
  const milliseconds = performance.now() - started;
  steps.push({ what, milliseconds });
  console.log(`  ${what} ... done`);
  return result;
}

function say(text: string): void {
  console.log(`\n${text}`);
}

/** The `qshim` command, as a person would type it. */
async function qshim(socket: string, ...args: readonly string[]): Promise<string> {
  const result = await execa(join(root, 'bin/qshim'), ['--socket', socket, ...args], { reject: false });
  if (result.exitCode !== 0) throw new Error(`qshim ${args.join(' ')}: ${result.stderr}`);
  return result.stdout;
}

async function startDaemon(directory: string, socket: string): Promise<ChildProcess> {
  await using log = await open(join(directory, 'qshimd.log'), 'a');
  const flags = [
    `--socket=${socket}`,
    `--state-dir=${join(directory, 'state')}`,
    `--cache-dir=${join(directory, 'cache')}`,
    `--allowed-roots=${join(directory, 'volumes')}`,
    // It leaves nothing behind, and templates stay in memory for the next daemon.
    '--template=off',
  ];
  const daemon = spawn(join(root, 'bin/qshimd'), flags, { stdio: ['ignore', log.fd, log.fd] });
  const end = Date.now() + DAEMON_START_MS;
  while (daemon.exitCode === null && Date.now() < end) {
    try {
      await access(socket);
      return daemon;
    } catch {
      await sleep(20);
    }
  }
  throw new Error(`the daemon did not start: ${await readFile(join(directory, 'qshimd.log'), 'utf8')}`);
}

/** Ends the daemon that this demo started, and waits until it is gone. */
async function stopDaemon(daemon: ChildProcess): Promise<void> {
  if (daemon.exitCode !== null) return;
  const exited = once(daemon, 'exit');
  daemon.kill('SIGTERM');
  await exited;
}

async function story(directory: string): Promise<void> {
  const socket = join(directory, 'run', 'qshim.sock');
  const volume = join(directory, 'volumes', 'data.raw');
  await mkdir(join(directory, 'volumes'));
  {
    await using file = await open(volume, 'w');
    await file.truncate(VOLUME_BYTES);
  }
  await using cleanup = new AsyncDisposableStack();

  say('1. A daemon, and a sandbox VM with a real kernel.');
  const daemon = await step('qshimd starts and listens on its socket', () => startDaemon(directory, socket));
  cleanup.defer(() => stopDaemon(daemon));
  cleanup.defer(() =>
    qshim(socket, 'sandbox', 'delete', 'demo', '--force').then(
      () => undefined,
      () => undefined,
    ),
  );
  await step('qshim sandbox create demo (boots until its agent answers)', () =>
    qshim(socket, 'sandbox', 'create', 'demo', '--vcpus', '2'),
  );
  const inGuest = (script: string): Promise<string> =>
    qshim(socket, 'sandbox', 'exec', 'demo', '--', '/bin/sh', '-c', script);
  const kernel = await inGuest('uname -r');
  const seen = JSON.parse(await qshim(socket, '--json', 'sandbox', 'get', 'demo')) as Sandbox;
  const accelerator = seen.accelerator === 'ACCELERATOR_KVM' ? 'KVM' : 'TCG';
  console.log(`  The guest runs Linux ${kernel.trim()} under ${accelerator} (${String(seen.acceleratorReason)}).`);

  say('2. A 64 MiB raw file becomes a disk of the running VM.');
  const mount = ['--mount', '/mnt/data', '--fs-type', 'ext4'];
  await step('qshim volume attach: plugged in, driver live, ext4 made, mounted', () =>
    qshim(socket, 'volume', 'attach', 'demo', 'data', '--raw', volume, ...mount, '--format', 'if-empty'),
  );
  console.log(await qshim(socket, 'volume', 'list', 'demo').then((text) => text.replaceAll(/^/gm, '  ')));
  await step('a file is written in the guest', () => inGuest(`echo '${SECRET}' > /mnt/data/note && sync`));

  say('3. The volume is taken out while the VM runs, and the bytes are on the host.');
  await step('qshim volume detach: unmounted, unplugged, proven gone', () =>
    qshim(socket, 'volume', 'detach', 'demo', 'data'),
  );
  const offset = (await readFile(volume)).indexOf(SECRET);
  if (offset < 0) throw new Error('the bytes that the guest wrote are not in the file');
  console.log(`  "${SECRET}" stands at byte ${offset} of ${volume}.`);

  say('4. Attached again, read-only this time, the guest reads it back.');
  await step('qshim volume attach --read-only', () =>
    qshim(socket, 'volume', 'attach', 'demo', 'data', '--raw', volume, '--read-only', ...mount, '--format', 'never'),
  );
  const read = await inGuest('cat /mnt/data/note');
  if (read.trim() !== SECRET) throw new Error(`the guest read ${JSON.stringify(read)}`);
  console.log(`  The guest reads: ${read.trim()}`);
  await step('qshim volume detach', () => qshim(socket, 'volume', 'detach', 'demo', 'data'));

  say('5. Everything is cleared away.');
  await step('qshim sandbox stop demo (the guest shuts itself down)', () => qshim(socket, 'sandbox', 'stop', 'demo'));
  await step('qshim sandbox delete demo', () => qshim(socket, 'sandbox', 'delete', 'demo'));
  await step('qshimd ends on SIGTERM', () => stopDaemon(daemon));
  if (daemon.exitCode !== 0) throw new Error(`the daemon exited with ${String(daemon.exitCode)}`);
}

async function main(): Promise<void> {
  console.log('qshim: volumes that come and go while a sandbox VM runs.');
  console.log('Every step below is reported only after it was observed in QEMU and in the guest.');
  await ensureTestTools();
  const directory = await mkdtemp(join(tmpdir(), 'qshim-demo-'));
  try {
    await story(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
  const total = steps.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
  console.log('\nWhat took how long (each qshim command includes the start of the command itself):');
  for (const { what, milliseconds } of steps) {
    const bar = '#'.repeat(Math.round((milliseconds / total) * 40));
    console.log(`  ${what.padEnd(66)} ${milliseconds.toFixed(0).padStart(6)} ms ${bar}`);
  }
  console.log(`\nDone; nothing is left behind. ${(total / 1000).toFixed(1)} s in all.`);
}

await main();
