import { readFile } from 'node:fs/promises';
import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls, createSecureContext, type SecureContext } from 'node:tls';
import { once } from 'node:events';
import { ShimError, errnoOf, messageOf } from '../../base/errors.ts';
import type { ReasonWith } from '../../base/reasons.ts';
import type { ServerAddress } from '../relay-arguments.ts';

/**
 * What an NBD server says of an export, asked as a client asks that then does not come: fixed newstyle, NBD_OPT_INFO,
 * NBD_OPT_ABORT. Not NBD_OPT_GO: a client that has gone so far counts, and a server that serves one client would end
 * with it. Names and numbers are those of https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md.
 */

/** For the whole look, TLS included. */
const LOOK_TIMEOUT_MS = 10_000;
/** A string has at most 4096 bytes; what comes with it is short. */
const REPLY_BYTES_MAX = 8192;
/** Of one answer to NBD_OPT_INFO; today's servers send up to four. */
const REPLIES_MAX = 32;

const MAGIC = 0x4e42444d41474943n;
const OPTION_MAGIC = 0x49484156454f5054n;
const OLD_STYLE_MAGIC = 0x00420281861253n;
const REPLY_MAGIC = 0x0003e889045565a9n;
const FLAG_FIXED_NEWSTYLE = 1 << 0;
const FLAG_NO_ZEROES = 1 << 1;
const OPT_ABORT = 2;
const OPT_STARTTLS = 5;
const OPT_INFO = 6;
const REP_ACK = 1;
const REP_INFO = 3;
const REP_ERR_UNSUP = 2 ** 31 + 1;
const REP_ERR_TLS_REQD = 2 ** 31 + 5;
const REP_ERR_UNKNOWN = 2 ** 31 + 6;
const INFO_EXPORT = 0;
const INFO_EXPORT_BYTES = 12;
const INFO_BLOCK_SIZE = 3;
const INFO_BLOCK_SIZE_BYTES = 14;
const TRANSMISSION_FLAG_READ_ONLY = 1 << 1;
const MIN_BLOCK_BYTES_MAX = 65_536;

export interface NbdTarget {
  readonly server: ServerAddress;
  readonly exportName: string;
  /** Directory of the credentials, and whom the server's certificate must name; undefined: without TLS. */
  readonly tls: { readonly directory: string; readonly hostname: string } | undefined;
  /** For people. */
  readonly described: string;
}

export interface NbdExportInfo {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** 1 when the server does not say. */
  readonly minBlockBytes: number;
}

/**
 * Asks the server. Changes nothing, and sends nothing to a server that has not said that it speaks NBD.
 * @throws ShimError FAILED_PRECONDITION: NBD_SERVER_UNREACHABLE, NBD_EXPORT_NOT_FOUND, NBD_TLS_FAILED,
 *   SOURCE_NOT_USABLE
 */
export async function lookAtExport(target: NbdTarget): Promise<NbdExportInfo> {
  const { described, tls } = target;
  const credentials = tls && (await readCredentials(described, tls.directory));
  using wire = await Wire.connect(target);
  await greet(wire, described);
  if (tls !== undefined && credentials !== undefined) await startTls(wire, described, credentials, tls.hostname);
  const info = await askInfo(wire, target);
  // All is known; the server is given the time to answer, or else it logs an error.
  wire.write(optionRequest(OPT_ABORT));
  await readReply(wire, OPT_ABORT, described).catch(() => undefined);
  return info;
}

function refusal(
  described: string,
  reason: ReasonWith<'FAILED_PRECONDITION'>,
  problem: string,
  cause?: unknown,
): ShimError {
  return new ShimError('FAILED_PRECONDITION', `spec.source = ${JSON.stringify(described)}: the NBD server ${problem}`, {
    reason,
    metadata: { field: 'spec.source', value: described },
    cause,
  });
}

/** The bytes from and to the server; the time limit runs from the beginning. */
class Wire implements Disposable {
  readonly #described: string;
  readonly #timer: NodeJS.Timeout;
  #socket: Socket;
  #chunks: AsyncIterator<unknown, undefined>;
  #unread = Buffer.alloc(0);
  #encrypted = false;

  private constructor(socket: Socket, described: string) {
    this.#described = described;
    this.#socket = socket;
    this.#chunks = chunksOf(socket);
    this.#timer = setTimeout(() => {
      const problem = `does not answer within ${LOOK_TIMEOUT_MS} ms`;
      this.#socket.destroy(refusal(described, 'NBD_SERVER_UNREACHABLE', problem));
    }, LOOK_TIMEOUT_MS);
    // What breaks between two reads shows in the next one.
    socket.on('error', () => undefined);
  }

  static async connect({ server, described }: NbdTarget): Promise<Wire> {
    const socket = connectTcp(
      server.type === 'unix' ? { path: server.path } : { host: server.host, port: server.port },
    );
    const wire = new Wire(socket, described);
    try {
      await once(socket, 'connect');
      return wire;
    } catch (error) {
      wire[Symbol.dispose]();
      throw wire.#broken(error);
    }
  }

  /** @throws ShimError when the server hangs up before there are so many */
  async read(count: number): Promise<Buffer> {
    while (this.#unread.length < count) {
      const { done, value } = await this.#chunks.next().catch((error: unknown) => {
        throw this.#broken(error);
      });
      if (done === true || !Buffer.isBuffer(value)) throw this.#broken(undefined);
      this.#unread = Buffer.concat([this.#unread, value]);
    }
    const bytes = this.#unread.subarray(0, count);
    this.#unread = this.#unread.subarray(count);
    return bytes;
  }

  write(bytes: Buffer): void {
    this.#socket.write(bytes);
  }

  /** @param host whom the server's certificate must name */
  async encrypt(secureContext: SecureContext, host: string): Promise<void> {
    if (this.#unread.length > 0) {
      throw refusal(this.#described, 'NBD_TLS_FAILED', 'sends plain bytes where TLS begins');
    }
    this.#encrypted = true;
    await this.#chunks.return?.();
    // An address is checked, and not said to the server (RFC 6066).
    const names = isIP(host) === 0 ? { host, servername: host } : { host };
    this.#socket = connectTls({ socket: this.#socket, secureContext, ...names });
    this.#socket.on('error', () => undefined);
    await once(this.#socket, 'secureConnect').catch((error: unknown) => {
      throw this.#broken(error);
    });
    this.#chunks = chunksOf(this.#socket);
  }

  #broken(error: unknown): ShimError {
    if (error instanceof ShimError) return error;
    if (this.#encrypted) {
      const why = error === undefined ? 'hangs up' : `ends it: ${messageOf(error)}`;
      return refusal(this.#described, 'NBD_TLS_FAILED', `and qshim agree on TLS, and then it ${why}`, error);
    }
    const why = error === undefined ? 'hangs up' : `cannot be reached: ${messageOf(error)}`;
    return refusal(this.#described, 'NBD_SERVER_UNREACHABLE', why, error);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#socket.destroySoon();
  }
}

/** A stream in its own chunks; leaving it leaves the stream open. */
function chunksOf(socket: Socket): AsyncIterator<unknown, undefined> {
  return socket.iterator({ destroyOnReturn: false });
}

async function greet(wire: Wire, described: string): Promise<void> {
  const magic = (await wire.read(8)).readBigUInt64BE();
  if (magic !== MAGIC) throw refusal(described, 'SOURCE_NOT_USABLE', 'does not speak NBD');
  const style = (await wire.read(8)).readBigUInt64BE();
  if (style === OLD_STYLE_MAGIC) throw refusal(described, 'SOURCE_NOT_USABLE', 'speaks the old style of NBD');
  if (style !== OPTION_MAGIC) throw refusal(described, 'SOURCE_NOT_USABLE', 'does not speak NBD');
  const flags = (await wire.read(2)).readUInt16BE();
  if ((flags & FLAG_FIXED_NEWSTYLE) === 0) throw refusal(described, 'SOURCE_NOT_USABLE', 'speaks the old style of NBD');
  const answer = Buffer.alloc(4);
  answer.writeUInt32BE(FLAG_FIXED_NEWSTYLE | (flags & FLAG_NO_ZEROES));
  wire.write(answer);
}

async function startTls(wire: Wire, described: string, credentials: SecureContext, hostname: string): Promise<void> {
  wire.write(optionRequest(OPT_STARTTLS));
  const { type, data } = await readReply(wire, OPT_STARTTLS, described);
  if (type !== REP_ACK) throw refusal(described, 'NBD_TLS_FAILED', `does not do TLS${said(data)}`);
  await wire.encrypt(credentials, hostname);
}

async function askInfo(wire: Wire, { exportName, described }: NbdTarget): Promise<NbdExportInfo> {
  const name = Buffer.from(exportName);
  const data = Buffer.alloc(4 + name.length + 4);
  data.writeUInt32BE(name.length, 0);
  name.copy(data, 4);
  data.writeUInt16BE(1, 4 + name.length);
  data.writeUInt16BE(INFO_BLOCK_SIZE, 6 + name.length);
  wire.write(optionRequest(OPT_INFO, data));
  let info: Partial<NbdExportInfo> = {};
  for (let replies = 0; replies < REPLIES_MAX; replies += 1) {
    const reply = await readReply(wire, OPT_INFO, described);
    if (reply.type === REP_ACK) return complete(info, described);
    if (reply.type !== REP_INFO) throw infoRefusal(reply, exportName, described);
    info = { ...info, ...infoOf(reply.data, described) };
  }
  throw refusal(described, 'SOURCE_NOT_USABLE', `sends more than ${REPLIES_MAX} replies to one question`);
}

/** Other kinds of information are passed over. */
function infoOf(data: Buffer, described: string): Partial<NbdExportInfo> {
  const type = data.length < 2 ? undefined : data.readUInt16BE(0);
  if (type === INFO_EXPORT && data.length === INFO_EXPORT_BYTES) {
    const readOnly = (data.readUInt16BE(10) & TRANSMISSION_FLAG_READ_ONLY) !== 0;
    return { sizeBytes: Number(data.readBigUInt64BE(2)), readOnly };
  }
  if (type === INFO_BLOCK_SIZE && data.length === INFO_BLOCK_SIZE_BYTES) {
    const minBlockBytes = data.readUInt32BE(2);
    if (isBlockSize(minBlockBytes)) return { minBlockBytes };
  }
  if (type !== undefined && type !== INFO_EXPORT && type !== INFO_BLOCK_SIZE) return {};
  throw refusal(described, 'SOURCE_NOT_USABLE', 'gives information that the protocol does not allow');
}

function isBlockSize(bytes: number): boolean {
  return bytes >= 1 && bytes <= MIN_BLOCK_BYTES_MAX && (bytes & (bytes - 1)) === 0;
}

function complete(info: Partial<NbdExportInfo>, described: string): NbdExportInfo {
  const { sizeBytes, readOnly, minBlockBytes = 1 } = info;
  if (sizeBytes === undefined || readOnly === undefined) {
    throw refusal(described, 'SOURCE_NOT_USABLE', 'does not tell the size of the export');
  }
  return { sizeBytes, readOnly, minBlockBytes };
}

function infoRefusal({ type, data }: Reply, exportName: string, described: string): ShimError {
  switch (type) {
    case REP_ERR_UNKNOWN: {
      const name = exportName === '' ? 'no default export' : `no export ${JSON.stringify(exportName)}`;
      return refusal(described, 'NBD_EXPORT_NOT_FOUND', `has ${name}${said(data)}`);
    }
    case REP_ERR_TLS_REQD:
      return refusal(described, 'NBD_TLS_FAILED', `wants TLS${said(data)}`);
    case REP_ERR_UNSUP:
      return refusal(described, 'SOURCE_NOT_USABLE', `cannot be asked about an export (NBD_OPT_INFO)${said(data)}`);
    default:
      return refusal(described, 'SOURCE_NOT_USABLE', `refuses (reply type 0x${type.toString(16)})${said(data)}`);
  }
}

/** What an error reply says to people. */
function said(data: Buffer): string {
  return data.length === 0 ? '' : `, and says ${JSON.stringify(data.toString('utf8').slice(0, 200))}`;
}

interface Reply {
  readonly type: number;
  readonly data: Buffer;
}

async function readReply(wire: Wire, option: number, described: string): Promise<Reply> {
  const header = await wire.read(20);
  const length = header.readUInt32BE(16);
  if (header.readBigUInt64BE(0) !== REPLY_MAGIC || header.readUInt32BE(8) !== option) {
    throw refusal(described, 'SOURCE_NOT_USABLE', 'gives an answer that is none to the question');
  }
  if (length > REPLY_BYTES_MAX) {
    throw refusal(described, 'SOURCE_NOT_USABLE', `gives an answer of ${length} bytes, more than ${REPLY_BYTES_MAX}`);
  }
  return { type: header.readUInt32BE(12), data: await wire.read(length) };
}

function optionRequest(option: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(16);
  header.writeBigUInt64BE(OPTION_MAGIC, 0);
  header.writeUInt32BE(option, 8);
  header.writeUInt32BE(data.length, 12);
  return Buffer.concat([header, data]);
}

/**
 * The files that QEMU's tls-creds-x509 reads for a client; its certificate and key may be missing together. The key
 * goes from the file into OpenSSL, which needs it to prove who the client is; nothing else gets it, and the bytes that
 * were read are zeroed.
 */
async function readCredentials(described: string, directory: string): Promise<SecureContext> {
  const [ca, cert, key] = await Promise.all([
    readPem(described, join(directory, 'ca-cert.pem')),
    readPem(described, join(directory, 'client-cert.pem')),
    readPem(described, join(directory, 'client-key.pem')),
  ]);
  try {
    if (ca === undefined) throw new Error('there is no ca-cert.pem');
    if (cert === undefined || key === undefined) return createSecureContext({ ca });
    return createSecureContext({ ca, cert, key });
  } catch (error) {
    throw credentialsRefusal(described, directory, error);
  } finally {
    key?.fill(0);
  }
}

async function readPem(described: string, path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw credentialsRefusal(described, path, error);
  }
}

function credentialsRefusal(described: string, path: string, error: unknown): ShimError {
  return new ShimError(
    'FAILED_PRECONDITION',
    `spec.source = ${JSON.stringify(described)}: the TLS credentials in ${path} cannot be used: ${messageOf(error)}`,
    { reason: 'NBD_TLS_FAILED', metadata: { field: 'spec.source', value: described }, cause: error },
  );
}
