import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { connect, createServer, type NetConnectOpts } from 'node:net';
import { join } from 'node:path';
import { execa } from 'execa';
import { until } from './until.ts';

/** NBD servers and their certificates, for tests. */

export type NbdAddress = { readonly path: string } | { readonly host: string; readonly port: number };

/** An address on the loopback that nothing listens on. */
export async function freeAddress(): Promise<{ readonly host: string; readonly port: number }> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return { host: '127.0.0.1', port: address.port };
}

/** A server as a process. Disposing kills it. */
export class NbdServerProcess implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  #said = '';

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#exited = once(child, 'exit');
    child.stderr?.on('data', (chunk: Buffer) => (this.#said += chunk.toString()));
  }

  /** Starts it, and waits until it listens. */
  static async start(address: NbdAddress, command: string, args: readonly string[]): Promise<NbdServerProcess> {
    const server = new NbdServerProcess(spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] }));
    try {
      await until(`${command} listens`, async () => {
        if (server.#child.exitCode !== null) throw new Error(`${command} has ended: ${server.#said}`);
        return await listens(address);
      });
      return server;
    } catch (error) {
      await server.kill();
      throw error;
    }
  }

  /** `qemu-nbd` on a raw file. @param more options of its own */
  static qemuNbd(
    address: NbdAddress,
    file: string,
    exportName: string,
    more: readonly string[] = [],
  ): Promise<NbdServerProcess> {
    const at = 'path' in address ? ['-k', address.path] : ['-b', address.host, '-p', String(address.port)];
    return NbdServerProcess.start(address, 'qemu-nbd', [...at, '-f', 'raw', '-x', exportName, ...more, file]);
  }

  /** `nbdkit`. @param more options, and the plugin with its parameters */
  static nbdkit(address: NbdAddress, more: readonly string[]): Promise<NbdServerProcess> {
    const at = 'path' in address ? ['-U', address.path] : ['-i', address.host, '-p', String(address.port)];
    return NbdServerProcess.start(address, 'nbdkit', ['-f', ...at, ...more]);
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }

  /** Resolves once it has ended by itself. */
  async ended(): Promise<void> {
    await this.#exited;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill();
  }
}

async function listens(address: NetConnectOpts): Promise<boolean> {
  const socket = connect(address);
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

/** A certificate authority in a directory of its own. */
export class TestAuthority {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  static async make(directory: string): Promise<TestAuthority> {
    await mkdir(directory, { recursive: true });
    await openssl(directory, [
      'req',
      '-x509',
      ...NEW_KEY,
      'ca-key.pem',
      '-out',
      'ca-cert.pem',
      '-subj',
      '/CN=authority',
    ]);
    return new TestAuthority(directory);
  }

  /**
   * A certificate with its key for a server or a client, in the authority's directory.
   * @param names as openssl writes them
   */
  async issue(role: 'server' | 'client', names = 'DNS:localhost,IP:127.0.0.1'): Promise<void> {
    const extensions = [
      `subjectAltName=${names}`,
      'basicConstraints=critical,CA:false',
      'keyUsage=critical,digitalSignature,keyEncipherment',
      `extendedKeyUsage=${role}Auth`,
    ];
    await writeFile(join(this.#directory, 'extensions'), extensions.join('\n'));
    await openssl(this.#directory, [
      'req',
      ...NEW_KEY,
      `${role}-key.pem`,
      '-out',
      'request.pem',
      '-subj',
      `/CN=${role}`,
    ]);
    const signed = ['-CA', 'ca-cert.pem', '-CAkey', 'ca-key.pem', '-CAcreateserial', '-extfile', 'extensions'];
    await openssl(this.#directory, ['x509', '-req', '-in', 'request.pem', '-out', `${role}-cert.pem`, ...signed]);
  }
}

const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout'];

async function openssl(directory: string, args: readonly string[]): Promise<void> {
  await execa('openssl', args, { cwd: directory });
}
