/** What `qshim doctor` found out about one thing. */
export interface Finding {
  /** What was looked at, e.g. "qemu", "kvm". */
  readonly check: string;
  readonly status: 'ok' | 'warning' | 'failure';
  /** What was seen, in one sentence. */
  readonly detail: string;
  /** What to do about it; absent when nothing needs doing. */
  readonly remedy?: string;
}
