import { glob, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { whyMissing, type Command } from './packages.ts';

const root = join(import.meta.dirname, '..', '..');
const folders = ['.ci', 'bin', 'scripts', 'src'];
/** `#!/bin/sh`, `#!/bin/busybox sh`, `#!/usr/bin/env bash` */
const shebang = /^#!.*[/ ](?:ba)?sh\n/;
/** Two blanks, cases indented, a blank behind `>`; no syntax that not every shell has. */
const style = ['-ln', 'posix', '-i', '2', '-ci', '-sr'];

interface ShellCheck {
  readonly command: Command;
  readonly args: readonly string[];
  /** Why it cannot be made here, in one sentence. */
  readonly missing: string | undefined;
}

/** The checks of the project's shell scripts. Installs what they need, as far as it is missing and this process may. */
export async function shellChecks(): Promise<readonly ShellCheck[]> {
  const scripts = await shellScripts();
  return [
    { command: 'shellcheck', args: scripts, missing: await whyMissing('shellcheck') },
    { command: 'shfmt', args: [...style, '-d', ...scripts], missing: await whyMissing('shfmt') },
  ];
}

/** The command line that gives all scripts their shape. */
export async function shellFormat(): Promise<ShellCheck> {
  const args = [...style, '-w', ...(await shellScripts())];
  return { command: 'shfmt', args, missing: await whyMissing('shfmt') };
}

/** Every shell script of the project: by its name, or by its first line. Relative to the project's root. */
export async function shellScripts(): Promise<readonly string[]> {
  const found: string[] = [];
  for await (const entry of glob(`{${folders.join(',')}}/**`, { cwd: root, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    const isScript = entry.name.endsWith('.sh') || shebang.test((await readFile(path, 'latin1')).slice(0, 80));
    if (isScript) found.push(path.slice(root.length + 1));
  }
  return found.sort();
}
