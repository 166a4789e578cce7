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
