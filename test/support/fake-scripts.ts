import { guestScript } from '../../src/guest/programs.ts';
import { disksAsked } from './fake-holders.ts';
import { HOLDERS_PID, type FakeVm } from './fake-qemu.ts';

const SCRIPTS = {
  mount: guestScript('prepare-mount'),
  unmount: guestScript('unmount'),
  open: guestScript('open-luks2'),
  close: guestScript('close-luks2'),
  holders: guestScript('holders'),
  resize: guestScript('resize-disk'),
  'resize-luks': guestScript('resize-luks2'),
  status: guestScript('status-luks2'),
} as const;
export type ScriptName = keyof typeof SCRIPTS;

const TABLE = '0 2048 crypt aes-xts-plain64 :64:logon:cryptsetup:d0 0 254:0 32768';

/** What each prints when all goes well. */
const USUAL: Readonly<Record<ScriptName, readonly string[]>> = {
  mount: ['device=/dev/vda', 'formatted=0', 'uuid='],
  unmount: ['unmounted=1'],
  open: [
    'slots=1',
    'luks_uuid=',
    `table=${TABLE}`,
    'mapped=/dev/mapper/qshim-a',
    'device=/dev/vda',
    'created=1',
    'formatted=0',
  ],
  close: ['closed=1'],
  // As the VM plays it.
  holders: [],
  resize: ['device=/dev/vda', 'sectors=4096', 'grown=ext4'],
  'resize-luks': ['device=/dev/vda', 'sectors=4096', 'grown=ext4'],
  status: ['kept=1', 'slots=1', 'luks_uuid=', `table=${TABLE}`, 'mapped=/dev/mapper/qshim-a', 'lower='],
};

/** Plays the scripts that qshim runs in a guest: mounts and encryption, without a guest. */
export class FakeScripts {
  /** The scripts that were run, oldest first. */
  readonly ran: ScriptName[] = [];
  readonly #printed: Partial<Record<ScriptName, readonly string[]>> = {};
  /** What is mounted: the point as mountinfo writes it, by the PCI address of its disk. */
  readonly #mounted = new Map<string, string>();

  constructor(vm: FakeVm) {
    let printed: readonly string[] = [];
    const uses = vm.uses;
    vm.uses = (pci) => [...this.#mountOf(pci).map((point) => `0 mount:${point} kernel`), ...uses(pci)];
    vm.agent.answer = (request) => {
      switch (request.execute) {
        case 'guest-exec': {
          const args = request.arguments['arg'];
          const name = Array.isArray(args) ? scriptOf(String(args[1])) : undefined;
          if (name === undefined) return new Error('no script that is known here');
          this.ran.push(name);
          if (disksAsked(request) !== undefined && this.#printed.holders === undefined) return vm.answerAgent(request);
          printed = this.#printed[name] ?? this.#play(name, (args as unknown[]).map(String));
          return { pid: this.ran.length };
        }
        case 'guest-exec-status':
          if (Number(request.arguments['pid']) > HOLDERS_PID) return vm.answerAgent(request);
          return {
            exited: true,
            exitcode: printed.some((line) => line.startsWith('error=')) ? 1 : 0,
            'out-data': Buffer.from(printed.join('\n')).toString('base64'),
          };
        default:
          return vm.answerAgent(request);
      }
    };
  }

  /** The guest unmounts everything by itself. */
  unmountAll(): void {
    this.#mounted.clear();
  }

  #play(name: ScriptName, [, , , pci = '', ...args]: readonly string[]): readonly string[] {
    const point = name === 'mount' ? args[3] : name === 'open' ? args[9] : '';
    if (point !== undefined && point !== '') this.#mounted.set(pci, point);
    if (name === 'unmount' || name === 'close') this.#mounted.delete(pci);
    return name === 'status' ? [...USUAL[name], ...this.#mountOf(pci).map((at) => `left=${at}`)] : USUAL[name];
  }

  #mountOf(pci: string): readonly string[] {
    const point = this.#mounted.get(pci);
    return point === undefined ? [] : [point];
  }

  /** What a script prints from now on; undefined: what is usual. */
  print(name: ScriptName, lines: readonly string[] | undefined): void {
    if (lines === undefined) Reflect.deleteProperty(this.#printed, name);
    else this.#printed[name] = lines;
  }
}

function scriptOf(text: string): ScriptName | undefined {
  return (Object.keys(SCRIPTS) as ScriptName[]).find((name) => SCRIPTS[name] === text);
}
