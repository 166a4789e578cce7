/**
 * Node's flags of every process of qshim; the launchers in bin/ have the same. SIGUSR1 starts no inspector, and
 * NODE_OPTIONS cannot ask for one (what a command line negates wins over it): all users of the host reach its port, and
 * whoever does runs code as the user of the process.
 */
export const NODE_FLAGS: readonly string[] = [
  '--disable-warning=ExperimentalWarning',
  '--disable-sigusr1',
  '--no-inspect',
  '--no-inspect-brk',
  '--no-inspect-wait',
];

/** The environment of a process of qshim that is no daemon: Node's compile cache, and nothing else of the daemon's. */
export function nodeEnvironment(): NodeJS.ProcessEnv {
  const cache = process.env['NODE_COMPILE_CACHE'];
  return cache === undefined ? {} : { NODE_COMPILE_CACHE: cache };
}
