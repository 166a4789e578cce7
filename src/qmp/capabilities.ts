import { realpath, stat } from 'node:fs/promises';
import { messageOf, ShimError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { readCache, writeCache } from './capability-cache.ts';
import type { QmpClient } from './client.ts';
import { checkContract, isAtLeast } from './contract-check.ts';
import type { QemuVersion, SchemaInfo } from './protocol.ts';
import type { QemuCapabilities } from './qemu-capabilities.ts';

/** Debian 12's. Older ones lack parts of what the design rests on. */
const OLDEST = { major: 7, minor: 2 } as const;
const MEMORY_MAX = 16;

export interface ProbeOptions {
  /** Path of the binary that serves the client: the cache's key, together with its size, time and version. */
  readonly binary: string;
  /** Where results outlive the daemon. None: memory only. */
  readonly cacheDir?: string;
  readonly log: Logger;
  /** The memory of earlier results; default: one for the process. */
  readonly memory?: Map<string, QemuCapabilities>;
}

const processMemory = new Map<string, QemuCapabilities>();

/**
 * Finds out what the client's QEMU can do. The schema (0.2 MB, 90 ms) is asked once for each binary; then memory or the
 * cache directory answers. A cache that cannot be read or written costs a warning, never the result.
 * @throws ShimError UNIMPLEMENTED / QEMU_TOO_OLD below 7.2 (metadata.version, metadata.oldest)
 * @throws what `QmpClient.run` throws
 */
export async function probeCapabilities(
  client: Pick<QmpClient, 'greeting' | 'run'>,
  options: ProbeOptions,
): Promise<QemuCapabilities> {
  const { log, cacheDir, memory = processMemory } = options;
  const { version, package: packageName } = client.greeting;
  const versionText = `${version.major}.${version.minor}.${version.micro}`;
  checkVersion(version, versionText);
  const key = await keyOf(options.binary, `${versionText} ${packageName}`, log);
  const known = key === undefined ? undefined : memory.get(key);
  if (known !== undefined) return known;
  const file = key === undefined || cacheDir === undefined ? undefined : { cacheDir, key };
  const cached = file === undefined ? undefined : await readCache(file, log);
  const found = cached ?? describe(await client.run('query-qmp-schema'), version, versionText, packageName);
  if (cached === undefined && found.contractFindings.length > 0) {
    log.warn({ version: versionText, findings: found.contractFindings }, 'this qemu lacks parts that qshim uses');
  }
  if (key !== undefined) remember(memory, key, found);
  if (file !== undefined && cached === undefined) await writeCache(file, found, log);
  return found;
}

function checkVersion(version: QemuVersion, versionText: string): void {
  if (isAtLeast(version, OLDEST.major, OLDEST.minor)) return;
  const oldest = `${OLDEST.major}.${OLDEST.minor}`;
  throw new ShimError('UNIMPLEMENTED', `QEMU ${versionText} is too old: qshim needs ${oldest} or later`, {
    reason: 'QEMU_TOO_OLD',
    metadata: { version: versionText, oldest },
  });
}

/** Undefined when the file has gone (an upgrade under a running VM): then nothing is cached. */
async function keyOf(binary: string, version: string, log: Logger): Promise<string | undefined> {
  try {
    const path = await realpath(binary);
    const { size, mtimeMs } = await stat(path);
    return JSON.stringify([path, size, mtimeMs, version]);
  } catch (error) {
    log.debug({ binary, error: messageOf(error) }, 'qemu binary not found, its capabilities are not cached');
    return undefined;
  }
}

function remember(memory: Map<string, QemuCapabilities>, key: string, found: QemuCapabilities): void {
  const [oldest] = memory.keys();
  if (memory.size >= MEMORY_MAX && oldest !== undefined) memory.delete(oldest);
  memory.set(key, found);
}

function describe(
  schema: readonly SchemaInfo[],
  version: QemuVersion,
  versionText: string,
  packageName: string,
): QemuCapabilities {
  const types = new Map(schema.map((info) => [info.name, info]));
  const namesOf = (metaType: string): Set<string> =>
    new Set(schema.filter((info) => info['meta-type'] === metaType).map((info) => info.name));
  const commands = namesOf('command');
  const nodeOptions = types.get(types.get('blockdev-add')?.['arg-type'] ?? '');
  const createOptions = memberType(types, types.get(types.get('blockdev-create')?.['arg-type'] ?? ''), 'options');
  const socketBackend = memberType(types, types.get(types.get('chardev-add')?.['arg-type'] ?? ''), 'backend');
  return {
    version,
    versionText,
    package: packageName,
    commands,
    events: namesOf('event'),
    blockDrivers: new Set(nodeOptions?.variants?.map((variant) => variant.case)),
    ioUring: memberType(types, variant(types, nodeOptions, 'file'), 'aio')?.values?.includes('io_uring') ?? false,
    virtioStatus: commands.has('x-query-virtio-status'),
    iothreadVqMapping: isAtLeast(version, 9, 0),
    detachedLuksHeader:
      memberType(types, variant(types, nodeOptions, 'luks'), 'header') !== undefined &&
      memberType(types, variant(types, createOptions, 'luks'), 'header') !== undefined,
    runWithUser: isAtLeast(version, 9, 1),
    chardevReconnectMs:
      memberType(types, memberType(types, variant(types, socketBackend, 'socket'), 'data'), 'reconnect-ms') !==
      undefined,
    contractFindings: checkContract(schema, version),
  };
}

type Types = ReadonlyMap<string, SchemaInfo>;

function memberType(types: Types, object: SchemaInfo | undefined, name: string): SchemaInfo | undefined {
  return types.get(object?.members?.find((member) => member.name === name)?.type ?? '');
}

function variant(types: Types, object: SchemaInfo | undefined, name: string): SchemaInfo | undefined {
  return types.get(object?.variants?.find((candidate) => candidate.case === name)?.type ?? '');
}
