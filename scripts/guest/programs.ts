import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { ensureCommands, ensurePackages } from '../lib/packages.ts';

/**
 * The programs in C that run in guests: `player`, which the daemon puts into a template's guest, and `qshim-uevents`,
 * which the image has in /usr/sbin.
 */
export const programNames = ['player', 'qshim-uevents'] as const;

/** Their sources, and those of the scripts that the daemon reads by itself. */
export const programSources = join(import.meta.dirname, '..', '..', 'src', 'guest', 'programs');

const options = [
  ...['-std=gnu11', '-Os', '-Wall', '-Wextra', '-Werror'],
  // No library, and nothing in the file that is for one, for a debugger, or different in each build.
  ...['-ffreestanding', '-nostdlib', '-static', '-fno-pie', '-no-pie', '-fno-stack-protector', '-fcf-protection=none'],
  ...['-fno-asynchronous-unwind-tables', '-Wl,--build-id=none', '-Wl,--strip-all', '-Wl,-T,program.ld'],
];

/** Installs the compiler and the kernel's headers for programs, as far as they are missing and this process may. */
export async function ensureCompiler(): Promise<void> {
  await ensureCommands(['gcc']);
  await ensurePackages(['linux-libc-dev'], () => Promise.resolve(existsSync('/usr/include/linux/filter.h')));
}

/**
 * Compiler and linker, with their packages' versions; undefined when there is none. The same ones give the same bytes.
 */
export async function compilerVersion(): Promise<string | undefined> {
  const versions: string[] = [];
  for (const command of ['gcc', 'ld']) {
    const { exitCode, stdout } = await execa(command, ['--version'], { env: { LC_ALL: 'C' }, reject: false });
    if (exitCode !== 0) return undefined;
    versions.push(stdout.split('\n', 1)[0] ?? '');
  }
  return versions.join(', ');
}

/** Compiles every program into `directory`, which is made. @throws Error with the compiler's words */
export async function buildPrograms(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  for (const name of programNames) {
    await execa('gcc', [...options, '-o', join(directory, name), `${name}.c`], {
      cwd: programSources,
      env: { LC_ALL: 'C' },
    });
  }
}
