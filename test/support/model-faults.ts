import { setTimeout as sleep } from 'node:timers/promises';
import { QMP_CONTRACT } from '../../src/qmp/contract.ts';
import type { QmpCommandName } from '../../src/qmp/protocol.ts';
import type { FakeVm } from './fake-qemu.ts';
import { NO_REPLY, QmpFailure, type Arguments, type Handler, type HandlerContext } from './fake-qmp.ts';
import { CHANGING, type DriverMode, type Fault, type UnplugMode } from './model-steps.ts';

/** Shorter than the daemon's time limit for a reply, and longer. */
const SLOW_MS = 100;
const VERY_SLOW_MS = 1500;
const SLOW_DRIVER_MS = 60;
const LATE_UNPLUG_MS = 120;

/**
 * A fake VM that errs on command. Like QEMU's monitor it carries commands out one after another: while one is slow,
 * those behind it wait, whichever connection they came from.
 */
export class FaultyVm {
  readonly vm: FakeVm;
  /** Ids of devices whose driver has been live at some time. */
  readonly everLive = new Set<string>();
  /** Volumes that the guest has mounted by itself. */
  readonly busy = new Set<string>();
  driver: DriverMode = 'live';
  unplug: UnplugMode = 'at once';
  /** The process has been told to end: nothing that the model lists exists any more. */
  exited = false;
  readonly #kill: () => void;
  #armed: Fault | undefined;
  #stall: Promise<void> | undefined;

  /** @param kill ends the daemon with SIGKILL */
  constructor(vm: FakeVm, kill: () => void) {
    this.vm = vm;
    this.#kill = kill;
    vm.model.unplug = 'manual';
    vm.model.driver = 'manual';
    const changing: readonly string[] = CHANGING;
    // Object.keys forgets that the contract's keys are the command names.
    for (const name of Object.keys(QMP_CONTRACT.commands) as QmpCommandName[]) {
      const usual = this.#withGuest(name, vm.qmp.handlerOf(name));
      const wrapped = changing.includes(name) ? this.#withFault(name, usual) : usual;
      vm.qmp.on(name, (args, context) => {
        const stall = this.#stall;
        return stall === undefined ? wrapped(args, context) : stall.then(() => wrapped(args, context));
      });
    }
    vm.uses = (pci) => this.#uses(pci);
  }

  arm(fault: Fault | undefined): void {
    this.#armed = fault;
  }

  exit(): void {
    this.exited = true;
    this.vm.exit(1);
  }

  /** The device leaves, whoever asked. */
  vanish(id: string): void {
    if (this.vm.model.devices.has(id)) this.vm.model.completeUnplug(id);
  }

  #withFault(name: QmpCommandName, usual: Handler): Handler {
    return (args, context) => {
      const fault = this.#armed;
      if (fault?.command !== name) return usual(args, context);
      this.#armed = undefined;
      return this.#befall(fault, usual, args, context);
    };
  }

  #befall({ what, when }: Fault, usual: Handler, args: Arguments, context: HandlerContext): unknown {
    switch (what) {
      case 'refuse':
        throw new QmpFailure('refused by the test');
      case 'slow':
      case 'very slow':
        this.#stall = sleep(what === 'slow' ? SLOW_MS : VERY_SLOW_MS).then(() => {
          this.#stall = undefined;
        });
        return this.#stall.then(() => usual(args, context));
      case 'no reply':
      case 'drop':
      case 'kill':
      case 'exit':
        if (when === 'after') usual(args, { ...context, reply: () => undefined });
        if (what === 'drop') this.vm.qmp.drop();
        if (what === 'kill') this.#kill();
        if (what === 'exit') this.exit();
        return NO_REPLY;
    }
  }

  /** What the guest does about it. */
  #withGuest(name: QmpCommandName, usual: Handler): Handler {
    if (name === 'device_add') {
      return (args, context) => {
        const outcome = usual(args, context);
        this.#takeUp(String(args['id']));
        return outcome;
      };
    }
    if (name === 'device_del') {
      return (args, context) => {
        const outcome = usual(args, context);
        this.#letGo(String(args['id']));
        return outcome;
      };
    }
    return usual;
  }

  #takeUp(id: string): void {
    const { model } = this.vm;
    const live = (): void => {
      if (!model.devices.has(id)) return;
      this.everLive.add(id);
      model.driverLive(id);
    };
    if (this.driver === 'live') live();
    if (this.driver === 'slow') setTimeout(live, SLOW_DRIVER_MS);
    if (this.driver === 'failed') model.driverFailed(id);
    if (this.driver === 'firmware') model.firmwareLive(id);
  }

  #letGo(id: string): void {
    const { model, qmp } = this.vm;
    const path = `/machine/peripheral/${id}`;
    switch (this.unplug) {
      case 'never':
        return;
      case 'at once':
        setImmediate(() => this.vanish(id));
        return;
      case 'late':
        setTimeout(() => this.vanish(id), LATE_UNPLUG_MS);
        return;
      case 'without event':
        setImmediate(() => model.devices.delete(id));
        return;
      case 'events twice':
        setImmediate(() => {
          this.vanish(id);
          qmp.emit('DEVICE_DELETED', { device: id, path });
        });
    }
  }

  #uses(pci: string): readonly string[] {
    return [...this.vm.model.devices]
      .filter(([, { args }]) => pci === `0000:01:${String(args['addr']).replace(/^0x/, '').padStart(2, '0')}.0`)
      .filter(([id]) => this.busy.has(id.replace(/^vol-[0-9]+-/, '')))
      .map(([id]) => `0 mount:/mnt/${id} kernel`);
  }
}
