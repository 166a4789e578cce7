import { once } from 'node:events';
import { mkdtemp, realpath, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A scripted NBD server, for answers that real servers do not give; and the bytes of answers. */

/** What every NBD server says first. @param flags 3: fixed newstyle, no zeroes */
export function greeting(flags = 3): Buffer {
  return Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), uint16(flags)]);
}

export function reply(option: number, type: number, data: Buffer = Buffer.alloc(0)): Buffer {
  return Buffer.concat([
    Buffer.from('0003e889045565a9', 'hex'),
    uint32(option),
    uint32(type),
    uint32(data.length),
    data,
  ]);
}

export const OPT_INFO = 6;
const REP_ACK = 1;
const REP_INFO = 3;

export function ack(option = OPT_INFO): Buffer {
  return reply(option, REP_ACK);
}

/** NBD_INFO_EXPORT. @param flags bit 1: read-only */
export function exportInfo(sizeBytes: bigint, flags = 1): Buffer {
  const size = Buffer.alloc(8);
  size.writeBigUInt64BE(sizeBytes);
  return reply(OPT_INFO, REP_INFO, Buffer.concat([uint16(0), size, uint16(flags)]));
}

/** NBD_INFO_BLOCK_SIZE. */
export function blockSizeInfo(minBytes: number): Buffer {
  return reply(OPT_INFO, REP_INFO, Buffer.concat([uint16(3), uint32(minBytes), uint32(4096), uint32(2 ** 25)]));
}

/** Of a kind that no client knows. */
export function otherInfo(): Buffer {
  return reply(OPT_INFO, REP_INFO, Buffer.concat([uint16(77), Buffer.from('whatever')]));
}

export function uint16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** Says to each client what it is told to, on a unix socket of its own, and keeps what the clients said. */
export class NbdPeer implements AsyncDisposable {
  /** Resolved, in a directory of its own. */
  readonly path: string;
  readonly #directory: string;
  readonly #server: Server;
  readonly #clients = new Set<Socket>();
  readonly #heard: Buffer[] = [];

  private constructor(directory: string, serve: (client: Socket) => void) {
    this.#directory = directory;
    this.path = join(directory, 'nbd.sock');
    this.#server = createServer((client) => {
      this.#clients.add(client);
      client.on('data', (chunk: Buffer) => this.#heard.push(chunk));
      client.on('error', () => undefined);
      serve(client);
    });
  }

  /** @param below where its directory is made */
  static async start(serve: (client: Socket) => void, below = tmpdir()): Promise<NbdPeer> {
    const directory = await realpath(await mkdtemp(join(below, 'qshim-nbd-')));
    const peer = new NbdPeer(directory, serve);
    peer.#server.listen(peer.path);
    await once(peer.#server, 'listening');
    return peer;
  }

  /** One that says all this, whatever it is asked, and then hangs up. */
  static saying(...parts: readonly Buffer[]): Promise<NbdPeer> {
    return NbdPeer.start((client) => client.end(Buffer.concat(parts)));
  }

  get directory(): string {
    return this.#directory;
  }

  get clients(): number {
    return this.#clients.size;
  }

  /** All that clients have sent, once they have left. */
  async heard(): Promise<Buffer> {
    for (const client of this.#clients) if (!client.closed) await once(client, 'close');
    return Buffer.concat(this.#heard);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) client.destroy();
    this.#server.close();
    await once(this.#server, 'close');
    await rm(this.#directory, { recursive: true, force: true });
  }
}
