import { access, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { once } from 'node:events';
import { credentials, Metadata, status, type ServiceError } from '@grpc/grpc-js';
import { Command } from '@commander-js/extra-typings';
import { messageOf } from './base/errors.ts';
import { errorOutput } from './base/log.ts';
import { loadConfig } from './config.ts';
import { timestampOf } from './containerd/wire/messages.ts';
import { loadContainerdApi, messageCodec } from './containerd/wire/schema.ts';
import { ttrpcSocketOf } from './relay/control.ts';
import type { DeleteResponse, DeleteResponse__Output } from './grpc/generated/containerd/task/v3/DeleteResponse.ts';
import type { TaskClient } from './grpc/generated/containerd/task/v3/Task.ts';
import type { RuntimeInfo } from './grpc/generated/containerd/types/RuntimeInfo.ts';

/**
 * `containerd-shim-qshim-v2`: what containerd runs for the runtime io.containerd.qshim.v2. The work is the daemon's;
 * this only tells where it is (`start`), and takes away what is left of a container (`delete`). containerd reads both
 * standard output and standard error: not a word more may be written.
 */

const DEFAULT_CONFIG_FILE = '/etc/qshim/config.toml';
const RUNTIME_NAME = 'io.containerd.qshim.v2';
/**
 * The newest that containerd 1.7 takes, and the newest that 2.1 names (MAX_SHIM_VERSION): containerd.task.v2.Task over
 * ttrpc.
 */
const PROTOCOL_VERSION = 2;
const SIGKILL = 9;
const EXIT_UNKNOWN = 255;
const CALL_MS = 30_000;

interface Options {
  readonly id: string;
  readonly namespace: string;
}

async function socketPath(): Promise<string> {
  const file = await access(DEFAULT_CONFIG_FILE).then(
    () => DEFAULT_CONFIG_FILE,
    () => undefined,
  );
  const { containerd_socket } = await loadConfig({ file, environment: process.env, flags: {} });
  if (containerd_socket !== '') return containerd_socket;
  throw new Error(`containerd_socket is not set, neither in ${DEFAULT_CONFIG_FILE} nor as QSHIM_CONTAINERD_SOCKET`);
}

/**
 * containerd 1.7 reads the same answer again, after a restart, from the file `address` in the bundle, which is the
 * working directory. containerd 2 keeps an own copy (bootstrap.json).
 */
async function start(): Promise<void> {
  const path = ttrpcSocketOf(await socketPath());
  const socket = connect({ path });
  try {
    await once(socket, 'connect');
  } catch (error) {
    throw new Error(`qshimd does not serve containerd on ${path}: ${messageOf(error)}`, { cause: error });
  } finally {
    socket.destroy();
  }
  const answer = JSON.stringify({ version: PROTOCOL_VERSION, address: `unix://${path}`, protocol: 'ttrpc' });
  await writeFile('address', answer);
  process.stdout.write(answer);
}

/** Ends and removes a container that containerd has lost. The answer goes to standard output, as protobuf. */
async function remove({ id, namespace }: Options): Promise<void> {
  const { Task } = loadContainerdApi().containerd.task.v3;
  const client: TaskClient = new Task(`unix:${await socketPath()}`, credentials.createInsecure());
  const headers = new Metadata();
  headers.set('containerd-namespace', namespace);
  const limits = { deadline: Date.now() + CALL_MS };
  let answer: DeleteResponse = { exitStatus: EXIT_UNKNOWN, exitedAt: timestampOf(Date.now()) };
  try {
    await call((done) => client.kill({ id, signal: SIGKILL, all: true }, headers, limits, done));
    await call((done) => client.wait({ id }, headers, limits, done));
    answer = await call<DeleteResponse__Output>((done) => client.delete({ id }, headers, limits, done));
  } catch (error) {
    if ((error as ServiceError).code !== status.NOT_FOUND) throw error;
  } finally {
    client.close();
  }
  const codec = messageCodec<DeleteResponse, DeleteResponse>('containerd.task.v3.DeleteResponse');
  process.stdout.write(codec.serialize(answer));
}

function call<T>(begin: (done: (error: ServiceError | null, response?: T) => void) => unknown): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  begin((error, response) => {
    if (error === null && response !== undefined) resolve(response);
    else reject(error ?? new Error('neither an error nor a response'));
  });
  return promise;
}

function info(): void {
  const codec = messageCodec<RuntimeInfo, RuntimeInfo>('containerd.types.RuntimeInfo');
  process.stdout.write(codec.serialize({ name: RUNTIME_NAME, version: { version: 'v2' } }));
}

/** containerd's flags have one dash (Go's flag package); commander's have two. */
function twoDashes(args: readonly string[]): string[] {
  return args.map((arg) => (/^-[a-z][a-z-]+(=|$)/.test(arg) ? `-${arg}` : arg));
}

async function main(): Promise<void> {
  const command = new Command('containerd-shim-qshim-v2')
    .argument('[action]')
    .option('--id <id>', '', '')
    .option('--namespace <namespace>', '', 'default')
    .option('--address <address>')
    .option('--publish-binary <path>')
    .option('--bundle <path>')
    .option('--socket <path>')
    .option('--debug')
    .option('--info')
    .parse(['', '', ...twoDashes(process.argv.slice(2))]);
  const [action] = command.processedArgs;
  const options = command.opts();
  if (options.info === true) info();
  else if (action === 'start') await start();
  else if (action === 'delete') await remove(options);
  else throw new Error(`action ${JSON.stringify(action)}: must be start or delete`);
}

try {
  await main();
} catch (error) {
  errorOutput('containerd-shim-qshim-v2').write(`containerd-shim-qshim-v2: ${messageOf(error)}\n`);
  process.exitCode = 1;
}
