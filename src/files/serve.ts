import { closeSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { flushCompileCache } from 'node:module';
import { giveDescriptor } from './give.ts';
import { LeadsElsewhere, leadsElsewhere } from './leads.ts';
import { dieWithParent, receiveDescriptor } from './native.ts';
import { onProgress } from './progress.ts';
import { GIVE_BYTES_MAX, GIVE_DESCRIPTOR, errorData, type Answer, type Request } from './wire.ts';

/** Takes a file over: it is not the job's to close any more. */
export type Keep = (file: FileHandle) => void;

/** What a job may do besides giving its result. */
export interface JobContext {
  /** Keeps a file open beyond the end of the job, until the daemon lets go of it. The helper closes it then. */
  readonly keep: Keep;
}

/** One look, or one change, of a file that a caller named. Arguments and result are cloned between processes. */
export type Job = (context: JobContext, ...args: never[]) => Promise<unknown>;

/**
 * A helper's life: one request after the other, until the daemon has gone. What hangs here hangs nobody else, and is
 * killed (helper.ts).
 */
export function serveJobs(jobs: Readonly<Record<string, Job>>): void {
  let kept: FileHandle | undefined;
  let answering = 0;
  const answer = (message: Answer): void => void process.send?.(message);
  const drop = async (): Promise<void> => {
    const file = kept;
    kept = undefined;
    await file?.close();
  };
  const context: JobContext = {
    keep: (file) => {
      if (kept !== undefined) throw new Error('something is kept open already');
      kept = file;
    },
  };
  const work = async (request: Request): Promise<unknown> => {
    switch (request.kind) {
      case 'run': {
        const elsewhere = await leadsElsewhere(request.path);
        if (elsewhere !== undefined) throw new LeadsElsewhere(elsewhere);
        const job = jobs[request.job];
        if (job === undefined) throw new Error(`no job ${request.job}`);
        // The daemon's side has the types (looks.ts of the folder whose jobs they are).
        return await job(context, ...(request.args as never[])).catch(async (error: unknown) => {
          await drop();
          throw error;
        });
      }
      case 'give':
        if (kept === undefined) throw new Error('nothing is kept open');
        await give(kept.fd);
        return undefined;
      case 'drop':
        await drop();
        return undefined;
    }
  };
  onProgress(() => answer({ id: answering, kind: 'progress' }));
  dieWithParent();
  process.on('disconnect', () => process.exit(0));
  process.on('message', (request: Request) => {
    const { id } = request;
    answering = id;
    work(request).then(
      (value) => answer({ id, kind: 'done', value }),
      (error: unknown) =>
        answer(
          error instanceof LeadsElsewhere
            ? { id, kind: 'elsewhere', path: error.path }
            : { id, kind: 'failed', error: errorData(error) },
        ),
    );
  });
  answer({ id: 0, kind: 'ready' });
  // It ends by a signal, and would keep nothing of what was compiled.
  flushCompileCache();
}

/** Sends what the daemon has laid ready, to the socket that lies beside it. */
async function give(descriptor: number): Promise<void> {
  const { bytes, descriptor: socket } = receiveDescriptor(GIVE_DESCRIPTOR, GIVE_BYTES_MAX);
  if (socket === undefined) throw new Error('the daemon has laid no socket ready');
  try {
    await giveDescriptor(socket, bytes, descriptor);
  } finally {
    closeSync(socket);
  }
}
