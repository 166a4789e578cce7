import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { QemuProcess } from '../../src/qemu/process.ts';

/** A directory in which shells are started as if they were QEMU. */
export class Scratch implements AsyncDisposable {
  readonly directory: string;

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async make(): Promise<Scratch> {
    return new Scratch(await mkdtemp(join(tmpdir(), 'qshim-process-')));
  }

  get log(): string {
    return join(this.directory, 'qemu.log');
  }

  shell(script: string): Promise<QemuProcess> {
    return QemuProcess.spawn('/bin/sh', ['-c', script], this.directory, this.log);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.directory, { recursive: true });
  }
}
