// Original file: proto/qshim/v1/volumes.proto

export const AioMode = {
  AIO_MODE_AUTO: 'AIO_MODE_AUTO',
  AIO_MODE_THREADS: 'AIO_MODE_THREADS',
  AIO_MODE_NATIVE: 'AIO_MODE_NATIVE',
  AIO_MODE_IO_URING: 'AIO_MODE_IO_URING',
} as const;

export type AioMode =
  | 'AIO_MODE_AUTO'
  | 0
  | 'AIO_MODE_THREADS'
  | 1
  | 'AIO_MODE_NATIVE'
  | 2
  | 'AIO_MODE_IO_URING'
  | 3

export type AioMode__Output = typeof AioMode[keyof typeof AioMode]
