import { once } from 'node:events';
import { chmod, rm, rmdir } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { z } from 'zod';
import { ShimError, errnoOf, isShimError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { BoundedMutex } from '../base/mutex.ts';
import { claimSocket } from '../grpc/socket.ts';
import type { SandboxManager } from '../sandbox/manager.ts';
import { directVolumesOf, tellKata } from './direct-volumes.ts';
import type { Pod } from './pod.ts';

/** As in Kata: the Go runtime has it below /run/vc/sbs, runtime-rs below /run/kata. */
const SOCKET_NAME = 'shim-monitor.sock';
const REQUEST_BYTES_MAX = 16 * 1024;
const REQUEST_MS = 5000;
const CONNECTIONS_MAX = 16;
/** Units of CSI's VolumeUsage. */
const BYTES = 1;
const INODES = 2;

/** kata-runtime's members, and kata-ctl's. Both name the record's device. */
const resizeSchema = z.union([
  z.object({ VolumePath: z.string(), Size: z.int().min(0) }),
  z
    .object({ volume_guest_path: z.string(), size: z.int().min(0) })
    .transform(({ volume_guest_path, size }) => ({ VolumePath: volume_guest_path, Size: size })),
]);

interface MonitorOptions {
  readonly manager: Pick<SandboxManager, 'resize'>;
  /** Of Kata's records. */
  readonly directVolumes: string;
  /** In which each pod has a directory for its socket; empty: nothing of all this is done. */
  readonly directory: string;
  readonly log: Logger;
}

/**
 * What Kata's tools ask a sandbox about its direct-assigned volumes: `direct-volume stats` and `resize`, over HTTP on a
 * unix socket for each pod that has such volumes, and the files by which they find it.
 */
export class KataMonitor {
  readonly #options: MonitorOptions;
  readonly #served = new Map<Pod, Server>();
  readonly #watched = new WeakSet<Pod>();
  readonly #mutex = new BoundedMutex("Kata's files", 1);
  #leaving = false;

  constructor(options: MonitorOptions) {
    this.#options = options;
  }

  /** Brings files and socket to what the pod has now. Never throws: a pod is none the worse without them. */
  async follow(pod: Pod): Promise<void> {
    const { directory, directVolumes } = this.#options;
    if (directory === '') return;
    if (!this.#watched.has(pod)) {
      this.#watched.add(pod);
      void pod.ended.then(() => this.follow(pod));
    }
    using _turn = await this.#mutex.acquire();
    if (this.#leaving) return;
    try {
      if (directVolumesOf(pod).length > 0) await this.#serve(pod);
      else await this.#close(pod);
      await tellKata(pod, directVolumes);
    } catch (error) {
      pod.log.warn({ problem: messageOf(error) }, "Kata's tools cannot ask the pod about its volumes");
    }
  }

  /** The daemon ends: files stay with the volumes, and the next daemon serves. */
  async leave(): Promise<void> {
    using _turn = await this.#mutex.acquire();
    this.#leaving = true;
    for (const pod of [...this.#served.keys()]) await this.#close(pod);
  }

  async #serve(pod: Pod): Promise<void> {
    if (this.#served.has(pod)) return;
    const socket = join(this.#options.directory, pod.sandboxId, SOCKET_NAME);
    await claimSocket(socket);
    const server = createServer(
      { requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS, keepAlive: false, maxHeaderSize: REQUEST_BYTES_MAX },
      (request, response) => void this.#answer(pod, request, response),
    );
    server.maxConnections = CONNECTIONS_MAX;
    server.listen(socket);
    await once(server, 'listening');
    await chmod(socket, 0o600);
    server.on('error', (error) => pod.log.warn({ problem: messageOf(error) }, 'connection of a Kata tool lost'));
    this.#served.set(pod, server);
  }

  async #close(pod: Pod): Promise<void> {
    const server = this.#served.get(pod);
    this.#served.delete(pod);
    if (server !== undefined) {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    }
    // Also what a daemon that was killed has left.
    const directory = join(this.#options.directory, pod.sandboxId);
    await rm(join(directory, SOCKET_NAME), { force: true });
    await rmdir(directory).catch((error: unknown) => {
      if (errnoOf(error) !== 'ENOENT') throw error;
    });
  }

  async #answer(pod: Pod, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    response.setHeader('Connection', 'close');
    try {
      const text = await this.#reply(pod, request, gone.signal);
      response.end(text);
    } catch (error) {
      pod.log.info({ problem: messageOf(error) }, 'request of a Kata tool not carried out');
      response.statusCode = statusOf(error);
      response.end(messageOf(error));
    }
  }

  async #reply(pod: Pod, request: IncomingMessage, gone: AbortSignal): Promise<string> {
    const { pathname, search } = new URL(request.url ?? '/', 'http://shim');
    const { method } = request;
    if (pathname === '/direct-volume/stats' && (method === 'GET' || method === 'POST')) return await stats(pod, search);
    if (pathname === '/direct-volume/resize' && method === 'POST') {
      const { VolumePath, Size } = resizeSchema.parse(JSON.parse(await bodyOf(request)));
      const volumeId = volumeOf(pod, [VolumePath]);
      const options = { sizeBytes: Size, timeoutMs: 0, callerWait: gone };
      await this.#options.manager.resize(pod.sandboxId, volumeId, options);
      return '';
    }
    throw new ShimError('NOT_FOUND', `${method ?? ''} ${pathname}: is not served`, { reason: 'VOLUME_NOT_FOUND' });
  }
}

/** What the guest says, as Go writes CSI's VolumeStatsResponse in JSON. */
async function stats(pod: Pod, search: string): Promise<string> {
  const written = /[?&]path=([^&]*)/.exec(search)?.[1] ?? '';
  // Go's PathEscape lets `+` stand for itself; kata-ctl's form encoding means a space by it.
  const devices = [decodeURIComponent(written), decodeURIComponent(written.replaceAll('+', ' '))];
  const mountPoint = pod.volume(volumeOf(pod, devices))?.spec.mount?.mountPoint ?? '';
  const { blockBytes, blocks, blocksFree, blocksAvailable, inodes, inodesFree } =
    await pod.containers.fileSystem(mountPoint);
  const usage = [
    {
      available: blocksAvailable * blockBytes,
      total: blocks * blockBytes,
      used: (blocks - blocksFree) * blockBytes,
      unit: BYTES,
    },
    { available: inodesFree, total: inodes, used: inodes - inodesFree, unit: INODES },
  ];
  return JSON.stringify({ usage, volume_condition: { abnormal: false, message: 'OK' } });
}

/** @throws ShimError NOT_FOUND / VOLUME_NOT_FOUND */
function volumeOf(pod: Pod, devices: readonly string[]): string {
  const found = directVolumesOf(pod).find(({ device }) => devices.includes(device));
  if (found !== undefined) return found.volumeId;
  throw new ShimError('NOT_FOUND', `the pod has no direct-assigned volume of ${JSON.stringify(devices[0])}`, {
    reason: 'VOLUME_NOT_FOUND',
  });
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > REQUEST_BYTES_MAX) throw new SyntaxError(`the body has more than ${REQUEST_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function statusOf(error: unknown): number {
  if (isShimError(error, 'NOT_FOUND')) return 404;
  const isTheirs = error instanceof SyntaxError || error instanceof URIError || error instanceof z.ZodError;
  return isTheirs || isShimError(error, 'INVALID_ARGUMENT') ? 400 : 500;
}
