import { once } from 'node:events';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { OptionName } from '../../src/config.ts';
import { TRIAL_VM_NAME } from '../../src/qemu/trial.ts';
import type { QmpCommandName } from '../../src/qmp/protocol.ts';
import { FakeAgent, silence, type FakeRequest } from './fake-agent.ts';
import { serveAmend } from './fake-amend.ts';
import { disksAsked, printHolders } from './fake-holders.ts';
import { FakeQemuModel } from './fake-qemu-model.ts';
import { FakeQmp, NO_REPLY } from './fake-qmp.ts';

const CHILD = join(import.meta.dirname, 'fake-qemu-main.ts');
const LPC = { name: 'device[3]', type: 'child<ICH9-LPC>' };

/** Above the ids of all processes that tests make up. */
export const HOLDERS_PID = 1_000_000;

/** What a fake QEMU is like from its first moment on. */
export interface FakeVmOptions {
  readonly version?: readonly [major: number, minor: number, micro: number];
  /** What `acpi-pci-hotplug-with-bridge-support` says. Default true. */
  readonly acpiHotplug?: boolean;
  /** Ends before it listens, with this code and words on stderr. */
  readonly exitsAtOnce?: { readonly code: number; readonly said: string };
  /** Called before anybody can connect. */
  readonly prepare?: (vm: FakeVm) => void;
}

/**
 * One QEMU that the daemon started: a process that only lives, with QMP and the agent served by the test itself, so
 * that a test scripts both with plain functions (`qmp.on`, `agent.answer`). When the process ends, its sockets end with
 * it.
 */
export class FakeVm {
  readonly sandboxId: string;
  readonly pid: number;
  readonly args: readonly string[];
  readonly qmp: FakeQmp;
  readonly model: FakeQemuModel;
  readonly agent: FakeAgent;
  /** Who uses a disk in the guest, by its PCI address (0000:01:01.0): lines PID WHAT COMMAND. Default nobody. */
  uses: (pci: string) => readonly string[] = () => [];
  readonly #printed: string[] = [];
  /** Resolves when the process has ended and its sockets with it. */
  readonly ended: Promise<undefined>;
  readonly #ended = Promise.withResolvers<undefined>();
  readonly #control: Socket;

  private constructor(hello: Hello, control: Socket, qmp: FakeQmp, agent: FakeAgent, acpiHotplug: boolean) {
    this.args = hello.args;
    this.pid = hello.pid;
    this.sandboxId = sandboxIdOf(hello.args);
    this.ended = this.#ended.promise;
    this.#control = control;
    this.qmp = qmp;
    this.agent = agent;
    this.model = new FakeQemuModel(qmp, { bridges: bridgesOf(hello.args) });
    const list = qmp.handlerOf('qom-list');
    const get = qmp.handlerOf('qom-get');
    qmp.on('qom-list', (args, context) => (args['path'] === '/machine/unattached' ? [LPC] : list(args, context)));
    qmp.on('qom-get', (args, context) =>
      args['path'] === `/machine/unattached/${LPC.name}` ? acpiHotplug : get(args, context),
    );
    agent.answer = (request) => this.answerAgent(request);
  }

  static async serve(hello: Hello, control: Socket, options: FakeVmOptions): Promise<FakeVm> {
    const { version, acpiHotplug = true, prepare } = options;
    const qmpOptions = { path: socketOf(hello.args, 'qmp'), ...(version === undefined ? {} : { version }) };
    // The agent first: once QMP listens, the daemon comes.
    const agent = await FakeAgent.listen(socketOf(hello.args, 'agent'));
    const qmp = await FakeQmp.listen(qmpOptions);
    const vm = new FakeVm(hello, control, qmp, agent, acpiHotplug);
    prepare?.(vm);
    return vm;
  }

  /**
   * What the guest agent answers unless a test says otherwise: the disks that have a live driver, who uses them, no
   * mounts, no files.
   */
  answerAgent(request: FakeRequest): unknown {
    switch (request.execute) {
      case 'guest-get-fsinfo':
        return [];
      case 'guest-get-disks':
        return this.#disks();
      case 'guest-shutdown':
        this.qmp.emit('SHUTDOWN', { guest: true, reason: 'guest-shutdown' });
        this.exit(0);
        return silence;
      case 'guest-exec': {
        const asked = disksAsked(request);
        if (asked === undefined) return new Error('Command guest-exec has been disabled');
        this.#printed.push(printHolders(asked, this.uses));
        return { pid: HOLDERS_PID + this.#printed.length };
      }
      case 'guest-exec-status': {
        const printed = this.#printed[Number(request.arguments['pid']) - HOLDERS_PID - 1];
        if (printed === undefined) return new Error('no such process');
        return { exited: true, exitcode: 0, 'out-data': Buffer.from(printed).toString('base64') };
      }
      case 'guest-file-open':
        return new Error('Command guest-file-open has been disabled');
      default:
        return {};
    }
  }

  /** Ends the process, as QEMU ends by itself. */
  exit(code: number, said = ''): void {
    endProcess(this.#control, code, said);
  }

  /** Names of everything that attaching adds, by the model's own lists. */
  get held(): readonly string[] {
    return [...this.model.devices.keys(), ...this.model.nodes.keys()].sort();
  }

  /** The commands that change QEMU, in the order in which they came. */
  get changes(): readonly string[] {
    const changing = new Set(['blockdev-add', 'blockdev-del', 'device_add', 'device_del']);
    return this.qmp.received.filter(({ name }) => changing.has(name)).map(({ name }) => name);
  }

  /** The next command of this name is carried out and its reply lost. */
  loseReply(name: QmpCommandName): void {
    const usual = this.qmp.handlerOf(name);
    this.qmp.on(name, (args, context) => {
      this.qmp.on(name, usual);
      usual(args, { ...context, reply: () => undefined });
      return NO_REPLY;
    });
  }

  /** Keeps the next command of this name waiting: it is carried out, and answered, only when released. */
  hold(name: QmpCommandName): Held {
    const usual = this.qmp.handlerOf(name);
    const came = Promise.withResolvers<undefined>();
    const released = Promise.withResolvers<undefined>();
    this.qmp.on(name, async (args, context) => {
      this.qmp.on(name, usual);
      came.resolve(undefined);
      await released.promise;
      return usual(args, context);
    });
    return { came: came.promise, release: () => released.resolve(undefined) };
  }

  async close(): Promise<void> {
    await this.qmp[Symbol.asyncDispose]();
    await this.agent[Symbol.asyncDispose]();
    this.#ended.resolve(undefined);
  }

  #disks(): unknown[] {
    const bridges = bridgesOf(this.args);
    return [...this.model.devices.values()].map(({ args }, index) => ({
      name: `/dev/vd${String.fromCharCode(97 + index)}`,
      partition: false,
      address: {
        'pci-controller': {
          domain: 0,
          bus: 1 + bridges.indexOf(String(args['bus'])),
          slot: Number.parseInt(String(args['addr']), 16),
          function: 0,
        },
      },
    }));
  }
}

/** A command that waits in the fake QEMU. */
export interface Held {
  /** Resolves when the command has come. */
  readonly came: Promise<undefined>;
  readonly release: () => void;
}

interface Hello {
  readonly pid: number;
  readonly args: readonly string[];
}

/**
 * A program that qshimd takes for QEMU (`qemu_binary`), and the place where the test meets the VMs that it starts. VMs
 * outlive the daemon, as real ones do; disposing ends them.
 */
export class FakeQemu implements AsyncDisposable {
  readonly directory: string;
  /** By sandbox id, for VMs that start from now on. */
  readonly options = new Map<string, FakeVmOptions>();
  /** The VMs in which the daemon has tried the binary. */
  trials = 0;
  /** What the binary does when it is tried with x-query-virtio-status. Default: it answers. */
  onTrial: (qemu: { exit(code: number): void }) => unknown = () => ({});
  readonly #server: Server;
  readonly #vms = new Map<string, PromiseWithResolvers<FakeVm>>();
  readonly #work = new Set<Promise<void>>();
  readonly #controls = new Set<Socket>();

  private constructor(directory: string, server: Server) {
    this.directory = directory;
    this.#server = server;
    server.on('connection', (control) => {
      const work = this.#attend(control).finally(() => this.#work.delete(work));
      this.#work.add(work);
    });
  }

  static async make(): Promise<FakeQemu> {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-fq-'));
    const controlPath = join(directory, 'control.sock');
    const server = createServer();
    server.listen(controlPath);
    await once(server, 'listening');
    const command = [process.execPath, '--disable-warning=ExperimentalWarning', CHILD, controlPath];
    // The accelerator probe (-bios) finds a QEMU on which nothing runs.
    const launcher = [
      '#!/bin/sh',
      'case " $* " in *isa-debug-exit*) exit 1 ;; esac',
      `exec ${command.map((word) => `'${word}'`).join(' ')} "$@"`,
      '',
    ];
    await writeFile(join(directory, 'qemu'), launcher.join('\n'));
    await chmod(join(directory, 'qemu'), 0o755);
    await writeFile(join(directory, 'boot'), 'a kernel');
    return new FakeQemu(directory, server);
  }

  /** Options of the daemon that make it use this QEMU and find files to boot. */
  get config(): Partial<Record<OptionName, string | number>> {
    const boot = join(this.directory, 'boot');
    return { qemu_binary: join(this.directory, 'qemu'), kernel: boot, initrd: boot, template: 'off' };
  }

  /** The VM of a sandbox, as soon as its process runs and its sockets are there. */
  vm(sandboxId: string): Promise<FakeVm> {
    return this.#slot(sandboxId).promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    for (const control of this.#controls) control.destroy();
    await Promise.all(this.#work);
    await closed;
    await rm(this.directory, { recursive: true });
  }

  /** The VM in which the daemon tries what the binary survives. It has a disk, and nothing else that is asked for. */
  async #serveTrial(hello: Hello, control: Socket, ended: Promise<undefined>): Promise<void> {
    this.trials += 1;
    await using qmp = await FakeQmp.listen({ path: socketOf(hello.args, 'qmp') });
    serveAmend(qmp, () => Promise.resolve(undefined));
    qmp.on('x-query-virtio-status', () => this.onTrial({ exit: (code) => endProcess(control, code) }));
    await ended;
  }

  #slot(sandboxId: string): PromiseWithResolvers<FakeVm> {
    const slot = this.#vms.get(sandboxId) ?? Promise.withResolvers<FakeVm>();
    this.#vms.set(sandboxId, slot);
    return slot;
  }

  /** From the process's first word to its end. */
  async #attend(control: Socket): Promise<void> {
    this.#controls.add(control);
    // A process that is killed resets the connection: that, too, is its end.
    control.on('error', () => undefined);
    const { promise: ended, resolve: end } = Promise.withResolvers<undefined>();
    const { promise: spoken, resolve: speak } = Promise.withResolvers<string>();
    control.once('close', () => end(undefined));
    const lines = createInterface(control);
    lines.on('error', () => undefined);
    lines.once('line', speak);
    const line = await Promise.race([spoken, ended]);
    if (line !== undefined) {
      const hello = JSON.parse(line) as Hello;
      const sandboxId = sandboxIdOf(hello.args);
      const options = this.options.get(sandboxId) ?? {};
      if (hello.args.includes(TRIAL_VM_NAME)) {
        await this.#serveTrial(hello, control, ended);
      } else if (options.exitsAtOnce !== undefined) {
        const { code, said } = options.exitsAtOnce;
        endProcess(control, code, said);
        await ended;
      } else {
        const vm = await FakeVm.serve(hello, control, options);
        this.#slot(sandboxId).resolve(vm);
        await ended;
        this.#vms.delete(sandboxId);
        await vm.close();
      }
    }
    this.#controls.delete(control);
  }
}

function endProcess(control: Socket, code: number, said = ''): void {
  control.write(`${JSON.stringify({ exit: code, said })}\n`);
}

function sandboxIdOf(args: readonly string[]): string {
  const [, id = ''] = /^guest=qshim-(.*),debug-threads=on$/.exec(args[args.indexOf('-name') + 1] ?? '') ?? [];
  return id;
}

function socketOf(args: readonly string[], id: string): string {
  const found = args.map((arg) => /^socket,id=([^,]+),path=([^,]+),/.exec(arg)).find((match) => match?.[1] === id);
  if (found?.[2] === undefined) throw new Error(`QEMU was given no socket ${id}`);
  return found[2];
}

function bridgesOf(args: readonly string[]): readonly string[] {
  return args.flatMap((arg) => /^pci-bridge,id=([^,]+),/.exec(arg)?.[1] ?? []);
}
