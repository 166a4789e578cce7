import { basename, join } from 'node:path';
import { z } from 'zod';
import { ShimError, invalidArgument } from '../../base/errors.ts';
import { SOCKET_PATH_BYTES_MAX, pathBytes } from '../../base/socket-path.ts';
import { checkId } from '../../base/ids.ts';
import type { Config } from '../../config.ts';
import type { BlockdevNbd } from '../../qmp/block-options.ts';
import { checkHostPath, type AioMode, type DiskSpec } from '../model/disk.ts';
import { maybe } from '../model/maybe.ts';
import { generationOf, helperName, mediumOf, type NameOf, type QemuNames } from '../model/names.ts';
import { commonNode } from '../model/nodes.ts';
import { helperObject, type QemuObject } from '../model/objects.ts';
import { checkSize } from './local.ts';
import { findAllowed } from './open-file.ts';
import type { Inspection, IntendedUse, Seen, SourceModule } from './module.ts';
import { serverSchema, type ServerAddress } from '../relay-arguments.ts';

const PORT_DEFAULT = 10_809;
const PORT_MAX = 65_535;
/** QEMU names a node by server and export, in a text of 4096 bytes; the protocol asks servers for 256 only. */
const EXPORT_NAME_BYTES_MAX = 1024;
/** A guest that waits for its requests lets go of the disk only when they have ended. */
const RECONNECT_DELAY_S_MAX = 3600;
/** QEMU stands still while it opens a node, the guest with it: a server that has ceased to answer may cost so much. */
const OPEN_TIMEOUT_S = 5;

const schema = z
  .object({
    kind: z.literal('nbd'),
    server: serverSchema,
    /** Empty: the server's default export. */
    exportName: z.string(),
    /** Seconds for which requests wait for a server that has gone. */
    reconnectDelayS: z.int(),
    /** Name of the credentials; of a resolved source the path of their directory. */
    tls: maybe(z.string()),
  })
  .readonly();
export type NbdSource = z.infer<typeof schema>;

/** What a server of the NBD protocol exports, over a unix socket or TCP. */
export const nbd: SourceModule<NbdSource> = {
  kind: 'nbd',
  apiName: 'nbd_export',
  messageName: 'nbdExport',
  schema,
  command: {
    option: 'nbd',
    value: '<uri>',
    description: 'NBD export: nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH',
    fromText: (text, absolute) => withAbsoluteSocket(toMessage(fromUri(text)), absolute),
    absolute: withAbsoluteSocket,
    show: (message) => toUri(fromMessage(message)),
  },
  demands: { blockDrivers: ['raw', 'nbd'], sharedMemory: false, noClones: false },
  // Its header would have to be read over NBD too.
  carriesHostLuks: false,
  // QEMU's nbd driver tells the front end of none; requests that are smaller than the server's blocks it completes
  // itself.
  hostBlockSizes: false,
  canBeCut: false,
  byDescriptor: false,
  format: { driver: 'raw' },
  filePath: ({ server }) => (server.type === 'unix' ? server.path : undefined),
  fromMessage,
  toMessage,
  complete,
  describe: toUri,
  place: ({ server }) => (server.type === 'unix' ? server.path : `nbd:${server.host.toLowerCase()}`),
  resolved: (source, described) => {
    const { server, tls } = fromUri(described);
    return { ...source, server, tls };
  },
  inspect,
  aioModes: () => [undefined],
  protocol,
  helpers,
  server: ({ server }) => server,
  recognise,
  identify: (source) => Promise.resolve(identityOf(source)),
  // What the server has left is not to be seen here.
  freeBytes: () => Promise.resolve(Infinity),
};

const messageSchema = z.object({
  socket: z.string().nullish(),
  host: z.string().nullish(),
  port: z.number().nullish(),
  exportName: z.string().nullish(),
  reconnectDelayS: z.number().nullish(),
  tlsCredentials: z.string().nullish(),
});

function fromMessage(message: object): NbdSource {
  const { socket, host, port, exportName, reconnectDelayS, tlsCredentials } = messageSchema.parse(message);
  if (!host && port) throw invalidArgument('spec.source.port', port, 'goes with a host');
  return {
    kind: 'nbd',
    server: host ? { type: 'inet', host, port: port ?? 0 } : { type: 'unix', path: socket ?? '' },
    exportName: exportName ?? '',
    reconnectDelayS: reconnectDelayS ?? 0,
    tls: tlsCredentials === '' ? undefined : (tlsCredentials ?? undefined),
  };
}

function toMessage({ server, exportName, reconnectDelayS, tls }: NbdSource): object {
  const at = server.type === 'unix' ? { socket: server.path } : { host: server.host, port: server.port };
  return { ...at, exportName, reconnectDelayS, tlsCredentials: tls ?? '' };
}

function withAbsoluteSocket(message: object, absolute: (path: string) => string): object {
  const socket = messageSchema.safeParse(message).data?.socket ?? '';
  return socket === '' ? message : { ...message, socket: absolute(socket) };
}

function complete(requested: NbdSource): NbdSource {
  const { exportName, reconnectDelayS, tls } = requested;
  const server = completeServer(requested.server);
  if (Buffer.byteLength(exportName) > EXPORT_NAME_BYTES_MAX) {
    throw invalidArgument('spec.source.export_name', exportName, `is longer than ${EXPORT_NAME_BYTES_MAX} bytes`);
  }
  if (/\p{Cc}/u.test(exportName)) {
    throw invalidArgument('spec.source.export_name', exportName, 'must not contain control characters');
  }
  if (reconnectDelayS > RECONNECT_DELAY_S_MAX) {
    throw invalidArgument('spec.source.reconnect_delay_s', reconnectDelayS, `at most ${RECONNECT_DELAY_S_MAX}`);
  }
  if (tls !== undefined) checkId('spec.source.tls_credentials', tls);
  return { ...requested, server };
}

function completeServer(server: ServerAddress): ServerAddress {
  if (server.type === 'unix') {
    if (server.path === '') throw invalidArgument('spec.source', '', 'one of socket and host is needed');
    checkHostPath('spec.source.socket', server.path);
    return server;
  }
  const host = server.host.toLowerCase();
  const isName = /^(?=.{1,253}$)[a-z0-9]([a-z0-9._-]*[a-z0-9])?$/.test(host);
  if (!isName && !z.ipv6().safeParse(host).success) {
    throw invalidArgument('spec.source.host', server.host, 'is neither a host name nor an address');
  }
  if (server.port > PORT_MAX) throw invalidArgument('spec.source.port', server.port, `at most ${PORT_MAX}`);
  return { type: 'inet', host, port: server.port === 0 ? PORT_DEFAULT : server.port };
}

async function inspect(source: NbdSource, use: IntendedUse, config: Config): Promise<Inspection<NbdSource>> {
  const { exportName, tls } = source;
  const server = await resolveServer(source.server, config);
  // Once resolved it stays the directory that it was, whatever becomes of the configuration.
  const resolved = { ...source, server, tls: tls === undefined ? undefined : join(config.nbd_tls_directory, tls) };
  const described = toUri(resolved);
  const credentials =
    resolved.tls === undefined ? undefined : { directory: resolved.tls, hostname: tlsHostname(server) };
  // Loaded when it is needed: the command knows this module too, and starts faster without TLS.
  const { lookAtExport } = await import('./nbd-look.ts');
  const found = await lookAtExport({ server, exportName, tls: credentials, described });
  const sizeBytes = checkSize('spec.source', described, found.sizeBytes, use.logicalBlockSize);
  if (sizeBytes % found.minBlockBytes !== 0) {
    const problem = `has ${sizeBytes} bytes, not a multiple of the server's smallest block, ${found.minBlockBytes}`;
    throw invalidArgument('spec.source', described, problem, 'INVALID_SIZE');
  }
  if (found.readOnly && !use.readOnly) {
    throw new ShimError(
      'PERMISSION_DENIED',
      `spec.source = ${JSON.stringify(described)}: the NBD server exports it read-only`,
      { reason: 'NBD_EXPORT_READ_ONLY', metadata: { field: 'spec.source', value: described } },
    );
  }
  // What the server has it on, QEMU does not read by itself, and nor does qshim: the guest looks what is on it.
  return { resolved, identity: identityOf(resolved), sizeBytes, endsInSector: true, emptiness: 'look' };
}

async function resolveServer(server: ServerAddress, config: Config): Promise<ServerAddress> {
  if (server.type === 'inet') {
    const { host } = server;
    const spelled = [host, authority(server)];
    if (config.nbd_hosts.some((allowed) => spelled.includes(allowed.toLowerCase()))) return server;
    throw new ShimError(
      'PERMISSION_DENIED',
      `spec.source.host = ${JSON.stringify(host)}: ${authority(server)} is not in nbd_hosts (${config.nbd_hosts.join(', ')})`,
      { reason: 'NBD_HOST_NOT_ALLOWED', metadata: { field: 'spec.source.host', value: host } },
    );
  }
  const field = 'spec.source.socket';
  const wanted = { is: (found: { isSocket(): boolean }) => found.isSocket(), name: 'a unix socket' };
  const { path } = await findAllowed(field, server.path, wanted, config);
  if (pathBytes(path) > SOCKET_PATH_BYTES_MAX) {
    throw invalidArgument(field, path, `is longer than ${SOCKET_PATH_BYTES_MAX} bytes`, 'INVALID_PATH');
  }
  return { type: 'unix', path };
}

/** Two names of one export (another host name, the default export by its name) are two identities. */
function identityOf({ server, exportName }: NbdSource): string {
  const at = server.type === 'unix' ? `unix:${server.path}` : authority(server);
  return `nbd:${at}:${encoded(exportName)}`;
}

function protocol(
  { server, exportName, reconnectDelayS, tls }: NbdSource,
  names: QemuNames,
  disk: DiskSpec,
  _aio: undefined | AioMode,
  relay: string | undefined,
): BlockdevNbd {
  const direct = server.type === 'unix' ? server : { ...server, port: String(server.port) };
  return {
    ...commonNode(disk),
    driver: 'nbd',
    'node-name': names.protocol,
    server: relay === undefined ? direct : { type: 'unix', path: relay },
    export: exportName,
    'reconnect-delay': reconnectDelayS,
    'open-timeout': OPEN_TIMEOUT_S,
    ...(tls === undefined ? {} : { 'tls-creds': credentialsId(names, tls), 'tls-hostname': tlsHostname(server) }),
  };
}

/** Where QEMU sees no file of the host's, it gets those of the credentials beside the socket of the relay (add.ts). */
function helpers({ tls }: NbdSource, names: QemuNames, relay: string | undefined): readonly QemuObject[] {
  if (tls === undefined) return [];
  const args = {
    'qom-type': 'tls-creds-x509',
    id: credentialsId(names, tls),
    dir: relay === undefined ? tls : `${relay}.tls`,
    endpoint: 'client',
    'verify-peer': true,
  } as const;
  return [helperObject('add-tls-credentials', args, relay === undefined ? {} : { files: tls })];
}

/** Whom the server's certificate must name: a unix socket is on this host. */
function tlsHostname(server: ServerAddress): string {
  return server.type === 'inet' ? server.host : 'localhost';
}

/** Holds the name of the credentials: QEMU tells of them in no other way, should the journal be lost. */
function credentialsId(of: NameOf, tls: string): string {
  return helperName(of, `tls-${basename(tls)}`);
}

/** The reconnect delay is in none of QEMU's lists, so it comes back as 0. */
function recognise({ protocol: node, objects, relayed }: Seen): NbdSource | undefined {
  const seen = node.drv === 'nbd' ? readFilename(node.file) : undefined;
  if (seen === undefined) return undefined;
  const server = seen.server.type === 'unix' ? (relayed?.(seen.server.path) ?? seen.server) : seen.server;
  const found = { ...seen, server };
  const name = node['node-name'] ?? '';
  const prefix = helperName({ generation: generationOf(name) ?? 0, medium: mediumOf(name) }, 'tls-');
  const tls = objects.find((id) => id.startsWith(prefix))?.slice(prefix.length);
  return { kind: 'nbd', ...found, reconnectDelayS: 0, tls };
}

/** QEMU writes nothing in percent (block/nbd.c, nbd_refresh_filename); `json:` where a plain text could not tell it. */
function readFilename(filename: string): Pick<NbdSource, 'server' | 'exportName'> | undefined {
  if (filename.startsWith('json:')) return readJsonFilename(filename.slice('json:'.length));
  const [before, path, ...more] = filename.split('?socket=/');
  const unix = /^nbd\+unix:\/\/\/?(.*)$/su.exec(before ?? '');
  if (unix?.[1] !== undefined) {
    // Which of two is the parameter cannot be told.
    if (path === undefined || more.length > 0) return undefined;
    return { server: { type: 'unix', path: `/${path}` }, exportName: unix[1] };
  }
  const inet = /^nbd:\/\/([^/]+):([0-9]+)(?:\/(.*))?$/su.exec(filename);
  if (inet?.[1] === undefined) return undefined;
  const host = inet[1].replace(/^\[(.*)\]$/, '$1');
  return { server: { type: 'inet', host, port: Number(inet[2]) }, exportName: inet[3] ?? '' };
}

/** QEMU's options of the node, as it flattens them. */
const optionsSchema = z.union([
  z.object({ 'server.type': z.literal('unix'), 'server.path': z.string(), export: z.string().default('') }),
  z.object({
    'server.type': z.literal('inet'),
    'server.host': z.string(),
    'server.port': z.string().regex(/^[0-9]+$/),
    export: z.string().default(''),
  }),
]);

function readJsonFilename(json: string): Pick<NbdSource, 'server' | 'exportName'> | undefined {
  let options: unknown;
  try {
    options = JSON.parse(json);
  } catch {
    // Longer than QEMU's text may be, and cut off.
    return undefined;
  }
  const { data } = optionsSchema.safeParse(options);
  if (data === undefined) return undefined;
  const server: ServerAddress =
    data['server.type'] === 'unix'
      ? { type: 'unix', path: data['server.path'] }
      : { type: 'inet', host: data['server.host'], port: Number(data['server.port']) };
  return { server, exportName: data.export };
}

function authority({ host, port }: Extract<ServerAddress, { type: 'inet' }>): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

const URI =
  /^nbd(?<secure>s?)(?<unix>\+unix)?:\/\/(?<authority>[^/?#]*)(?:\/(?<exportName>[^?#]*))?(?:\?(?<query>[^#]*))?$/u;
const AUTHORITY = /^(?:\[(?<address>[^\]]*)\]|(?<name>[^:@]+))(?::(?<port>[0-9]{1,5}))?$/u;
const PARAMETERS = ['socket', 'tls', 'reconnect-delay'];

/**
 * https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md, with two parameters of qshim's own: `tls`,
 * `reconnect-delay`.
 */
function toUri({ server, exportName, reconnectDelayS, tls }: NbdSource): string {
  const secure = tls === undefined ? '' : 's';
  const parameters = [
    ...(server.type === 'unix' ? [`socket=${encoded(server.path)}`] : []),
    ...(tls === undefined ? [] : [`tls=${encoded(tls)}`]),
    ...(reconnectDelayS === 0 ? [] : [`reconnect-delay=${reconnectDelayS}`]),
  ];
  const query = parameters.length === 0 ? '' : `?${parameters.join('&')}`;
  const at = server.type === 'unix' ? `nbd${secure}+unix://` : `nbd${secure}://${authority(server)}`;
  return `${at}/${encoded(exportName)}${query}`;
}

/** @throws Error that says what is wrong with it */
function fromUri(text: string): NbdSource {
  const { secure, unix, authority: at = '', exportName = '', query = '' } = URI.exec(text)?.groups ?? {};
  if (secure === undefined) throw new Error('it is no nbd://HOST[:PORT]/EXPORT, and no nbd+unix:///EXPORT?socket=PATH');
  const { socket, tls, 'reconnect-delay': delay = '0' } = parametersOf(query);
  if ((secure === '') !== (tls === undefined)) throw new Error('nbds, and nbds+unix, goes with the parameter tls');
  if ((unix === undefined) !== (socket === undefined)) throw new Error('nbd+unix goes with the parameter socket');
  if (unix !== undefined && at !== '') throw new Error('a unix socket has no host: nbd+unix:///EXPORT?socket=PATH');
  if (!/^[0-9]{1,9}$/.test(delay)) throw new Error('reconnect-delay is a number of seconds');
  const server: ServerAddress = socket === undefined ? serverAt(at) : { type: 'unix', path: socket };
  return { kind: 'nbd', server, exportName: decoded(exportName), reconnectDelayS: Number(delay), tls };
}

function serverAt(text: string): ServerAddress {
  const { address, name, port } = AUTHORITY.exec(text)?.groups ?? {};
  const host = address ?? name;
  if (host === undefined) throw new Error('the host is HOST, HOST:PORT or [ADDRESS]:PORT');
  return { type: 'inet', host: decoded(host), port: port === undefined ? PORT_DEFAULT : Number(port) };
}

function parametersOf(query: string): Readonly<Partial<Record<string, string>>> {
  const found: Partial<Record<string, string>> = {};
  for (const part of query.split('&').filter((each) => each !== '')) {
    const [name = '', ...values] = part.split('=');
    const value = decoded(values.join('='));
    if (!PARAMETERS.includes(name)) throw new Error(`the parameters are ${PARAMETERS.join(', ')}, and not ${name}`);
    if (value === '' || name in found) throw new Error(`the parameter ${name} stands once, with a value`);
    found[name] = value;
  }
  return found;
}

function encoded(text: string): string {
  return encodeURIComponent(text).replaceAll('%2F', '/');
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new Error(`${text} has a % that encodes nothing`);
  }
}
