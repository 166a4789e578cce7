import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect as connectHttp2, constants, type ClientHttp2Session, type OutgoingHttpHeaders } from 'node:http2';
import { connect } from 'node:net';
import { status } from '@grpc/grpc-js';
import fc from 'fast-check';
import { loadApi } from '../../src/grpc/schema.ts';

/**
 * Calls that no client makes, from a seed: random bytes, random messages of the right type, mutilated ones, too long
 * ones, and streams that are none. What comes back is held against what may.
 */

export interface FuzzOptions {
  readonly socket: string;
  readonly messages: number;
  readonly seed: number;
  /** Of the daemon. */
  readonly requestBytesMax: number;
  /** Ids that requests are given besides random ones. */
  readonly ids: readonly string[];
  /** Methods that may not get one of these ids: they would change what the test looks at. */
  readonly sparing: RegExp;
}

export interface FuzzReport {
  /** Of calls that ended with it, by the name of the gRPC status; `RST_n` where the stream was reset with that code. */
  readonly outcomes: Readonly<Record<string, number>>;
  /** Messages of the right type that were answered as if the daemon were at fault. */
  readonly faults: readonly string[];
}

const CONCURRENCY = 32;
const CHUNK = 512;
/** A call that has begun to answer, or does not answer, is left. Milliseconds. */
const LEAVE_MS = 100;

/** What the loader tells of a message: google.protobuf.DescriptorProto. */
interface Descriptor {
  readonly name: string;
  readonly field: readonly Field[];
  readonly nestedType: readonly (Descriptor & { readonly options?: { readonly mapEntry?: boolean } })[];
}
interface Field {
  readonly name: string;
  readonly type: string;
  readonly label: string;
  readonly typeName: string;
}
interface Method {
  readonly name: string;
  readonly path: string;
  readonly stream: boolean;
  readonly serialize: (value: object) => Buffer;
  readonly arbitrary: fc.Arbitrary<object>;
}

/** One call, as bytes. */
interface Call {
  readonly kind: string;
  readonly path: string;
  readonly body: Buffer;
  readonly headers: OutgoingHttpHeaders;
  readonly ends: boolean;
  readonly typed: boolean;
}

/** @throws Error when the daemon does not answer any more */
export async function fuzzGrpc(options: FuzzOptions): Promise<FuzzReport> {
  const outcomes: Record<string, number> = {};
  const faults: string[] = [];
  const methods = methodsOf(options);
  const link = new Link(options.socket);
  for (let done = 0; done < options.messages; done += CHUNK) {
    const calls = fc.sample(callOf(methods, options), {
      seed: options.seed + done,
      numRuns: Math.min(CHUNK, options.messages - done),
    });
    const waiting = [...calls];
    const work = async (): Promise<void> => {
      for (let call = waiting.pop(); call !== undefined; call = waiting.pop()) {
        const outcome = await make(await link.session(), call);
        outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
        const atFault = outcome === 'INTERNAL' || outcome === 'UNKNOWN';
        if (atFault && call.typed) faults.push(`${call.path} ${outcome}: ${call.body.toString('base64')}`);
      }
    };
    await Promise.all(Array.from({ length: CONCURRENCY }, work));
  }
  await link.close();
  return { outcomes, faults };
}

/** One connection at a time: that the server ends one is among the answers that may be. */
class Link {
  readonly #socket: string;
  #session: Promise<ClientHttp2Session> | undefined;

  constructor(socket: string) {
    this.#socket = socket;
  }

  async session(): Promise<ClientHttp2Session> {
    const present = await this.#session;
    if (present !== undefined && !present.closed && !present.destroyed) return present;
    // Whoever comes first opens the next one for all.
    this.#opened ??= this.#open().finally(() => (this.#opened = undefined));
    this.#session = this.#opened;
    return await this.#opened;
  }
  #opened: Promise<ClientHttp2Session> | undefined;

  async #open(): Promise<ClientHttp2Session> {
    const session = connectHttp2('http://localhost', { createConnection: () => connect(this.#socket) });
    session.on('error', () => undefined);
    await once(session, 'connect');
    return session;
  }

  async close(): Promise<void> {
    (await this.#session)?.destroy();
  }
}

async function make(session: ClientHttp2Session, { path, body, headers, ends }: Call): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  try {
    const stream = session.request(
      { ':method': 'POST', ':path': path, te: 'trailers', 'content-type': 'application/grpc', ...headers },
      { endStream: false },
    );
    // With an error: without one it would wait until the server has read everything.
    const leave = setTimeout(() => stream.close(constants.NGHTTP2_CANCEL), LEAVE_MS);
    let seen: string | undefined;
    const take = (found: Readonly<Record<string, unknown>>): void => {
      const code: unknown = found['grpc-status'];
      if (typeof code === 'string') seen = status[Number(code)] ?? code;
    };
    stream.on('response', take);
    stream.on('trailers', take);
    stream.on('error', () => undefined);
    stream.on('close', () => {
      clearTimeout(leave);
      resolve(seen ?? `RST_${stream.rstCode}`);
    });
    stream.resume();
    stream.write(body);
    if (ends) stream.end();
  } catch {
    resolve('CLIENT');
  }
  return await promise;
}

function callOf(methods: readonly Method[], options: FuzzOptions): fc.Arbitrary<Call> {
  const typed = fc.oneof(...methods.map((method) => method.arbitrary.map((value) => ({ method, value }))));
  const plain = { headers: {}, ends: true };
  const valid = typed.map(({ method, value }) => ({
    ...{ ...plain, kind: 'typed', path: method.path, body: framed(method.serialize(value)), ends: !method.stream },
    typed: true,
  }));
  const path = fc.constantFrom(...methods.map((method) => method.path));
  const bytes = fc.record({ path, bytes: fc.uint8Array({ maxLength: 300 }) }).map((one) => ({
    ...{ ...plain, kind: 'bytes', path: one.path, body: framed(Buffer.from(one.bytes)), typed: false },
  }));
  const mutilated = fc
    .tuple(valid, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }))
    .map(([call, changes]) => ({ ...call, kind: 'mutilated', body: changed(call.body, changes), typed: false }));
  const misframed = fc
    .record({
      path,
      flag: fc.nat(255),
      length: fc.nat(0xffff_ffff),
      rest: fc.uint8Array({ maxLength: 64 }),
      ends: fc.boolean(),
    })
    .map((one) => ({
      ...{ ...plain, kind: 'misframed', path: one.path, ends: one.ends, typed: false },
      body: Buffer.concat([framed(Buffer.from(one.rest), one.length, one.flag), Buffer.from(one.rest)]),
    }));
  const several = fc.tuple(valid, valid).map(([one, two]) => ({
    ...{ ...one, kind: 'several', body: Buffer.concat([one.body, two.body, one.body]), typed: false },
  }));
  const long = fc.record({ path, more: fc.nat(4096) }).map((one) => ({
    ...{ ...plain, kind: 'long', path: one.path, typed: false },
    body: framed(Buffer.alloc(options.requestBytesMax + one.more, 0x0a)),
  }));
  const odd = fc
    .record({
      path: fc.oneof(path, fc.stringMatching(/^\/[!-~]{0,40}$/)),
      headers: fc.dictionary(fc.stringMatching(/^(grpc|x|qshim)-[a-z-]{1,20}$/), fc.stringMatching(/^[ -~]{0,40}$/), {
        maxKeys: 3,
      }),
      type: fc.constantFrom('application/grpc', 'application/grpc+json', 'text/plain', ''),
      timeout: fc.constantFrom('1n', '99999999H', '0S', '-1S', 'x', '5'),
      ends: fc.boolean(),
    })
    .map((one) => ({
      ...{ kind: 'odd', path: one.path, body: framed(Buffer.alloc(0)), ends: one.ends, typed: false },
      headers: { ...one.headers, 'content-type': one.type, 'grpc-timeout': one.timeout },
    }));
  const withConnection = bytes.map((call) => ({ ...call, headers: { 'qshim-connection': '1' } }));
  return fc.oneof(
    { weight: 40, arbitrary: valid },
    { weight: 20, arbitrary: mutilated },
    { weight: 15, arbitrary: bytes },
    { weight: 10, arbitrary: misframed },
    { weight: 8, arbitrary: several },
    { weight: 5, arbitrary: odd },
    { weight: 1, arbitrary: withConnection },
    { weight: 1, arbitrary: long },
  );
}

/** "Length-Prefixed-Message" of gRPC's PROTOCOL-HTTP2.md. */
function framed(message: Buffer, length = message.length, flag = 0): Buffer {
  const prefix = Buffer.alloc(5);
  prefix[0] = flag;
  prefix.writeUInt32BE(length, 1);
  return Buffer.concat([prefix, message]);
}

function changed(body: Buffer, changes: readonly (readonly [number, number])[]): Buffer {
  const copy = Buffer.from(body);
  // The prefix stays: what it says wrongly is another kind.
  for (const [at, byte] of changes) if (copy.length > 5) copy[5 + (at % (copy.length - 5))] = byte;
  return copy;
}

function methodsOf(options: FuzzOptions): readonly Method[] {
  const { v1 } = loadApi().qshim;
  const { Sandboxes, Volumes, Events } = v1;
  const types = new Map<string, Descriptor>();
  const services = [Sandboxes, Volumes, Events].map(({ service }) => service);
  for (const service of services) {
    for (const method of Object.values(service)) {
      // What the generated types do not say: the loader gives each method its messages' descriptors.
      const { type } = Reflect.get(method, 'requestType') as { readonly type: Descriptor };
      types.set(type.name, type);
    }
  }
  for (const [name, found] of Object.entries(messagesIn(v1))) types.set(name, found);
  return services.flatMap((service) =>
    Object.entries(service).map(([name, method]) => {
      const { type } = Reflect.get(method, 'requestType') as { readonly type: Descriptor };
      const spared = options.sparing.test(name);
      return {
        ...{ name, path: method.path, stream: method.requestStream || method.responseStream },
        serialize: method.requestSerialize as (value: object) => Buffer,
        arbitrary: messageOf(type, types, spared ? [] : options.ids, 0),
      };
    }),
  );
}

/** All messages of the API, by name: requests name others. */
function messagesIn(api: object): Record<string, Descriptor> {
  const found: Record<string, Descriptor> = {};
  for (const [name, one] of Object.entries(api)) {
    const type: unknown = Reflect.get(one as object, 'type');
    // Services and enums have no fields.
    if (typeof type === 'object' && type !== null && 'field' in type) found[name] = type as Descriptor;
  }
  return found;
}

const DEPTH_MAX = 5;

function messageOf(
  { field, nestedType }: Descriptor,
  types: ReadonlyMap<string, Descriptor>,
  ids: readonly string[],
  depth: number,
): fc.Arbitrary<object> {
  const members = field.map((one): [string, fc.Arbitrary<unknown>] => {
    const map = nestedType.find(({ name, options }) => options?.mapEntry === true && one.typeName.endsWith(name));
    if (map !== undefined) return [one.name, fc.dictionary(word(ids), word(ids), { maxKeys: 3 })];
    const value = valueOf(one, types, ids, depth);
    return [one.name, one.label === 'LABEL_REPEATED' ? fc.array(value, { maxLength: 4 }) : value];
  });
  return fc.record(Object.fromEntries(members.map(([name, value]) => [camelCase(name), value])), { requiredKeys: [] });
}

function valueOf(
  { type, typeName, name }: Field,
  types: ReadonlyMap<string, Descriptor>,
  ids: readonly string[],
  depth: number,
): fc.Arbitrary<unknown> {
  switch (type) {
    case 'TYPE_STRING':
      return /_id/.test(name) ? word(ids) : fc.oneof(word(ids), fc.string({ maxLength: 40, unit: 'binary' }));
    case 'TYPE_BYTES':
      return fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes));
    case 'TYPE_BOOL':
      return fc.boolean();
    case 'TYPE_ENUM':
      return fc.oneof(fc.nat(8), fc.integer());
    case 'TYPE_MESSAGE': {
      const found = types.get(typeName.split('.').at(-1) ?? '');
      if (found === undefined || depth >= DEPTH_MAX) return fc.constant({});
      return messageOf(found, types, ids, depth + 1);
    }
    default:
      return fc.oneof(fc.nat(1000), fc.nat(), fc.constantFrom(0, 1, 2 ** 31, 2 ** 32 - 1));
  }
}

function word(ids: readonly string[]): fc.Arbitrary<string> {
  return fc.oneof(
    fc.constantFrom('', 'a', 'none', '.', '..', '__proto__', 'constructor', '/', '/etc/passwd', 'x'.repeat(65), ...ids),
    fc.string({ maxLength: 12 }),
  );
}

function camelCase(name: string): string {
  return name.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

/** Resident memory of a process (proc_pid_status(5), VmRSS), bytes. */
export async function residentBytes(pid: number): Promise<number> {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1];
  return Number(kib) * 1024;
}
