import { statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { sleep } from '../base/deadline.ts';
import { messageOf } from '../base/errors.ts';
import type { QmpEvent } from '../qmp/protocol.ts';
import type { Sandbox } from '../sandbox/sandbox.ts';
import type { Volume } from './volume.ts';

/** Takes note of an I/O error (BLOCK_IO_ERROR, at most one a second): the volume's health changes, watchers are told. */
export function onIoError(sandbox: Sandbox, event: QmpEvent<'BLOCK_IO_ERROR'>): void {
  const { device, operation, action, reason, nospace } = event.data;
  const node = event.data['node-name'];
  const volume = sandbox.volumes
    .all()
    .find(({ names }) => node === names.formatNode || node === names.fileNode || device === names.device);
  sandbox.log.warn({ volumeId: volume?.id, node, operation, action, reason }, 'block i/o error');
  if (volume === undefined || volume.isRemoved()) return;
  const noSpace = nospace ?? false;
  volume.health = {
    failing: true,
    errors: volume.health.errors + 1,
    last: { operation, message: reason, action, noSpace, timeMs: Date.now() },
  };
  sandbox.volumes.announceHealth(volume, {
    reason: noSpace ? 'NO_SPACE' : 'IO_ERROR',
    message: `${operation} failed: ${reason} (action ${action})`,
  });
  if (action === 'stop' && noSpace) resumeWhenThereIsRoom(sandbox);
}

/** The VM runs again: what had failed for want of space has been tried anew. */
export function onResumed(sandbox: Sandbox): void {
  for (const volume of sandbox.volumes.all()) {
    if (!volume.health.failing || volume.health.last?.noSpace !== true) continue;
    volume.health = { ...volume.health, failing: false };
    sandbox.volumes.announceHealth(volume, {
      reason: 'RESUMED',
      message: 'the VM goes on after it had paused for space',
    });
  }
}

const waiting = new WeakSet<Sandbox>();

/**
 * Lets a VM that paused for want of space go on once there is room on the file systems of all volumes that pause it. There
 * is no event for free space, so it is looked for. A write that fails again pauses the VM again, and this begins anew.
 */
export function resumeWhenThereIsRoom(sandbox: Sandbox): void {
  if (waiting.has(sandbox)) return;
  waiting.add(sandbox);
  sandbox.inBackground(
    'resume after no space',
    waitForRoom(sandbox).finally(() => waiting.delete(sandbox)),
  );
}

async function waitForRoom(sandbox: Sandbox): Promise<void> {
  const { config, link, log } = sandbox;
  for (;;) {
    await sleep(config.no_space_retry_ms, sandbox.gone);
    try {
      const qmp = await link.ready();
      const { status } = await qmp.run('query-status');
      // Somebody else let it go on, or it is paused for another reason by now.
      if (status !== 'io-error') return;
      if (!(await everyVolumeHasRoom(sandbox))) continue;
      log.info('room again: the vm goes on');
      await qmp.run('cont');
      return;
    } catch (error) {
      sandbox.gone.throwIfAborted();
      log.warn({ problem: messageOf(error) }, 'looking for room failed, trying again');
    }
  }
}

async function everyVolumeHasRoom(sandbox: Sandbox): Promise<boolean> {
  const open = sandbox.volumes.all().filter((volume) => !volume.isRemoved() && pausesForSpace(volume));
  const rooms = await Promise.all(open.map((volume) => freeBytes(volume)));
  return rooms.every((free) => free >= sandbox.config.no_space_free_bytes);
}

function pausesForSpace({ spec }: Volume): boolean {
  return !spec.readOnly && (spec.writeErrors === 'enospc' || spec.writeErrors === 'stop');
}

async function freeBytes(volume: Volume): Promise<number> {
  // A block device has no file system that could fill up; what lies below it (thin storage) is not to be seen here.
  if (volume.spec.source.kind === 'block-device') return Infinity;
  const { bavail, bsize } = await statfs(dirname(volume.identity.resolvedPath));
  return bavail * bsize;
}
