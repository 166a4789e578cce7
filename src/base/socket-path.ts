/** What sockaddr_un takes, its terminating zero aside (unix(7)): whoever is asked cuts or refuses longer paths. */
export const SOCKET_PATH_BYTES_MAX = 107;

/** Bytes that a path has, as the kernel counts. */
export function pathBytes(path: string): number {
  return Buffer.byteLength(path);
}
