import { withPorts } from './absent-ports.ts';
import { ExitListener, type AnnouncedExit } from './exits.ts';
import type { Port, PortKind, Ports } from './port.ts';
import type { GuestRuntime, ProcessPorts } from './runtime.ts';
import type { StreamSpec } from './types.ts';

export const NO_PORTS: ProcessPorts = { stdin: 0, stdout: 0, stderr: 0, terminal: 0 };

interface GuestSideOptions {
  readonly runtime: GuestRuntime;
  readonly ports: Ports;
  readonly commit: () => Promise<void>;
  readonly heard: (exit: AnnouncedExit) => void;
}

/**
 * What all containers of a guest share: the program in it, the port on which ends are announced, and how ports get
 * there.
 */
export class GuestSide implements Disposable {
  /** 0: none yet. Journalled. */
  eventsPort = 0;
  readonly #options: GuestSideOptions;
  #listener: ExitListener | undefined;
  #installed: Promise<void> | undefined;

  constructor(options: GuestSideOptions) {
    this.#options = options;
  }

  /**
   * Once in each boot of the guest: its program, and the events port with a listener. A failure is tried again by the
   * next caller. @throws what Ports.add, GuestRuntime.install and `commit` throw
   */
  install(): Promise<void> {
    this.#installed ??= this.#install().catch((error: unknown) => {
      this.#installed = undefined;
      throw error;
    });
    return this.#installed;
  }

  /** The guest was reset: what was installed is gone. */
  forget(): void {
    this.#installed = undefined;
  }

  /** Plugs the ports that a process needs for its streams. @throws as Ports.add */
  async openPorts({ terminal, stdin, stdout, stderr }: StreamSpec): Promise<ProcessPorts> {
    const wanted: readonly (readonly [keyof ProcessPorts, PortKind, boolean])[] = [
      ['terminal', 'duplex', terminal],
      ['stdin', 'input', stdin && !terminal],
      ['stdout', 'output', stdout && !terminal],
      ['stderr', 'output', stderr && !terminal],
    ];
    const chosen = wanted.filter(([, , isWanted]) => isWanted);
    const ports = await this.#options.ports.add(chosen.map(([, kind]) => kind));
    const numbers = chosen.map(([name], index) => [name, ports[index]?.nr ?? 0]);
    return { ...NO_PORTS, ...(Object.fromEntries(numbers) as Partial<ProcessPorts>) };
  }

  /** As absent-ports.ts. */
  async withPorts<T>(step: () => Promise<T>): Promise<T> {
    return await withPorts(this.#options.ports, step);
  }

  [Symbol.dispose](): void {
    this.#listener?.[Symbol.dispose]();
    this.#listener = undefined;
  }

  async #install(): Promise<void> {
    const { runtime, heard } = this.#options;
    const port = await this.#openEvents();
    await this.withPorts(() => runtime.install(this.eventsPort));
    if (port?.outputPath !== undefined) {
      this.#listener ??= new ExitListener(port.outputPath, heard, this.#options.ports.budget?.control('ports'));
    }
  }

  async #openEvents(): Promise<Port | undefined> {
    const { ports, commit } = this.#options;
    const known = ports.get(this.eventsPort);
    if (known !== undefined) return known;
    const [port] = await ports.add(['output']);
    this.eventsPort = port?.nr ?? 0;
    await commit();
    return port;
  }
}
