import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { access, chmod, chown, copyFile, mkdir, mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { INITRD, KERNEL, KERNEL_PARAMETERS } from '../support/guest-image.ts';
import { UEVENT_PORT } from './uevents.ts';

/**
 * A user that owns nothing: libvirtd runs as it in session mode, so that every path of it lies in a directory of ours.
 */
const USER_ID = 65_534;
const START_MS = 20_000;
const DETACH_SEEN_MS = 30_000;
const LISTED_MS = 30_000;
const LOOK_PAUSE_MS = 1;

/**
 * A libvirtd of our own, in session mode, with all its files in one directory, and one client session that stays open:
 * a python3-libvirt process, as a control plane would have one. Disposing destroys the domains, ends both and removes
 * the directory.
 */
export class Libvirt implements AsyncDisposable {
  readonly directory: string;
  readonly daemon: ChildProcess;
  readonly #client: ChildProcess;
  readonly #lines: Interface;
  readonly #answers: AsyncIterator<string>;
  readonly #domains = new Set<string>();

  private constructor(directory: string, daemon: ChildProcess, client: ChildProcess) {
    this.directory = directory;
    this.daemon = daemon;
    this.#client = client;
    if (client.stdout === null) throw new Error('the client has no stdout');
    this.#lines = createInterface({ input: client.stdout });
    this.#answers = this.#lines[Symbol.asyncIterator]();
  }

  /** @param environment besides what libvirtd needs; libvirt hands LD_PRELOAD on to QEMU */
  static async start(parent: string, environment: Readonly<Record<string, string>> = {}): Promise<Libvirt> {
    const directory = await mkdtemp(join(parent, 'v-'));
    await chmod(directory, 0o711);
    for (const name of ['run', 'home', 'files']) {
      await mkdir(join(directory, name), { mode: 0o700 });
      await chown(join(directory, name), USER_ID, USER_ID);
    }
    for (const [from, name] of [
      [KERNEL, 'vmlinuz'],
      [INITRD, 'initrd.img'],
    ] as const) {
      await copyFile(from, join(directory, 'files', name));
      await chown(join(directory, 'files', name), USER_ID, USER_ID);
    }
    const env = {
      PATH: process.env['PATH'],
      HOME: join(directory, 'home'),
      XDG_RUNTIME_DIR: join(directory, 'run'),
      LIBVIRT_DEFAULT_URI: 'qemu:///session',
      ...environment,
    };
    const options = { env, uid: USER_ID, gid: USER_ID, cwd: directory } as const;
    const log = await open(join(directory, 'libvirtd.log'), 'a');
    const daemon = spawn('/usr/sbin/libvirtd', [], { ...options, stdio: ['ignore', log.fd, log.fd] });
    await once(daemon, 'spawn');
    await log.close();
    const socket = join(directory, 'run/libvirt/libvirt-sock');
    const end = performance.now() + START_MS;
    while (!(await exists(socket))) {
      if (daemon.exitCode !== null || performance.now() > end) {
        throw new Error(`libvirtd did not start: ${await readFile(join(directory, 'libvirtd.log'), 'utf8')}`);
      }
      await sleep(20);
    }
    const script = join(import.meta.dirname, 'libvirt-client.py');
    const text = await readFile(script, 'utf8');
    const uri = `qemu+unix:///session?socket=${socket}`;
    const client = spawn('/usr/bin/python3', ['-c', text, uri], { ...options, stdio: ['pipe', 'pipe', 'inherit'] });
    const libvirt = new Libvirt(directory, daemon, client);
    await libvirt.#answer();
    return libvirt;
  }

  /** One call of libvirt-client.py. */
  async call(name: string, ...args: readonly unknown[]): Promise<unknown> {
    this.#client.stdin?.write(`${JSON.stringify({ call: name, args })}\n`);
    return await this.#answer();
  }

  async #answer(): Promise<unknown> {
    const line = await this.#answers.next();
    if (line.done === true) throw new Error('the libvirt client has ended');
    const answer = JSON.parse(line.value) as { ok?: unknown; error?: string };
    if (answer.error !== undefined) throw new Error(answer.error);
    return answer.ok;
  }

  /** A raw file that the domains may open. */
  async rawFile(name: string, bytes: number): Promise<string> {
    const path = join(this.directory, 'files', name);
    await using file = await open(path, 'w');
    await file.truncate(bytes);
    await file.chown(USER_ID, USER_ID);
    return path;
  }

  /** Starts a domain like a qshim sandbox: q35, TCG, the reference guest, an agent, ports for disks. */
  async startDomain(name: string, options: { vcpus: number; ports: number; paused?: boolean }): Promise<void> {
    this.#domains.add(name);
    await this.call('start', domainXml(this.directory, name, options), options.paused === true);
  }

  async destroy(name: string): Promise<void> {
    await this.call('destroy', name);
    this.#domains.delete(name);
  }

  /** Waits until the guest agent answers. libvirt has no event for an answer, only for an open port. */
  async untilAgent(name: string): Promise<void> {
    const end = performance.now() + 120_000;
    for (;;) {
      try {
        await this.call('agent', name, { execute: 'guest-ping' }, 1);
        return;
      } catch (error) {
        if (performance.now() > end) throw error;
        await sleep(10);
      }
    }
  }

  /** Waits until the guest agent lists so many disks. */
  async untilListed(name: string, count: number): Promise<void> {
    const end = performance.now() + LISTED_MS;
    for (;;) {
      const answer = (await this.call('agent', name, { execute: 'guest-get-disks' }, 10)) as {
        return: readonly { readonly partition: boolean }[];
      };
      if (answer.return.filter(({ partition }) => !partition).length >= count) return;
      if (performance.now() > end) throw new Error(`${count} disks were not listed in time`);
      await sleep(LOOK_PAUSE_MS);
    }
  }

  /** Runs a shell command in the guest and leaves it running. */
  async guest(name: string, script: string): Promise<void> {
    const args = { path: '/bin/sh', arg: ['-c', script] };
    await this.call('agent', name, { execute: 'guest-exec', arguments: args }, 10);
    await sleep(300);
  }

  /** The socket of the port on which the guest's uevents come. */
  ueventSocket(name: string): string {
    return join(this.directory, 'run', `${name}.uevent`);
  }

  /** Asks for a disk to be taken out, and returns when libvirt has seen it go. */
  async detach(name: string, xml: string, disksLeft: number): Promise<void> {
    await this.call('detach', name, xml);
    const end = performance.now() + DETACH_SEEN_MS;
    // libvirt itself waits for the event, some seconds; after that it answers all the same.
    while ((await this.call('targets', name)) !== disksLeft) {
      if (performance.now() > end) throw new Error('the disk has not gone');
      await sleep(2);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of this.#domains) await this.destroy(name).catch(() => undefined);
    this.#client.stdin?.end();
    this.#lines.close();
    for (const child of [this.#client, this.daemon]) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const exited = once(child, 'exit');
      child.kill('SIGTERM');
      await exited;
    }
    await rm(this.directory, { recursive: true, force: true });
  }
}

export function diskXml(path: string, target: string): string {
  return `<disk type='file' device='disk'>
    <driver name='qemu' type='raw' io='io_uring' discard='unmap'/>
    <source file='${path}'/><target dev='${target}' bus='virtio'/><serial>${target}</serial></disk>`;
}

function domainXml(directory: string, name: string, { vcpus, ports }: { vcpus: number; ports: number }): string {
  const files = join(directory, 'files');
  return `<domain type='qemu'><name>${name}</name><memory unit='MiB'>512</memory><vcpu>${vcpus}</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><kernel>${files}/vmlinuz</kernel><initrd>${files}/initrd.img</initrd>
    <cmdline>${KERNEL_PARAMETERS}</cmdline></os>
  <features><acpi/></features><cpu mode='maximum'/><on_poweroff>destroy</on_poweroff>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='pci' index='0' model='pcie-root'/>
    ${"<controller type='pci' model='pcie-root-port'/>".repeat(ports + 8)}
    <controller type='usb' model='none'/><memballoon model='none'/>
    <serial type='null'/>
    <channel type='unix'><source mode='bind' path='${join(directory, 'run', `${name}.agent`)}'/>
      <target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <channel type='unix'><source mode='bind' path='${join(directory, 'run', `${name}.uevent`)}'/>
      <target type='virtio' name='${UEVENT_PORT}'/></channel>
  </devices><seclabel type='none'/></domain>`;
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}
