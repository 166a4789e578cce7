import { readFileSync } from 'node:fs';

/**
 * The mount point below which a path lies as it is written: what is told without touching the file system itself
 * (proc_pid_mountinfo(5)). A symbolic link on the way may lead elsewhere.
 */
export function mountPointOf(path: string, mountinfo = readFileSync('/proc/self/mountinfo', 'utf8')): string {
  let found = '/';
  for (const line of mountinfo.split('\n')) {
    const point = unescaped(line.split(' ')[4] ?? '');
    if (point.length < found.length || point === '') continue;
    if (path === point || path.startsWith(point.endsWith('/') ? point : `${point}/`)) found = point;
  }
  return found;
}

/** Blanks and the like stand as \040. */
function unescaped(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}
