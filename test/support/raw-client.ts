import { Client, credentials, type ServiceError } from '@grpc/grpc-js';
import { call } from './daemon.ts';

/** A client that sends bytes as they are. */
export class RawClient implements Disposable {
  readonly #client: Client;

  constructor(socket: string) {
    this.#client = new Client(`unix:${socket}`, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
  }

  unary(method: string, bytes: Buffer): Promise<Buffer> {
    return call((done) =>
      this.#client.makeUnaryRequest(
        `/qshim.v1.${method}`,
        (raw: Buffer) => raw,
        (raw) => raw,
        bytes,
        done,
      ),
    );
  }

  stream(method: string, bytes: Buffer): Promise<unknown> {
    const path = `/qshim.v1.${method}`;
    return firstOf(
      this.#client.makeServerStreamRequest(
        path,
        (raw: Buffer) => raw,
        (raw) => raw,
        bytes,
      ),
    );
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}

/** The first message of a stream, or its error. */
export function firstOf(stream: {
  on(event: 'data', listener: (message: unknown) => void): unknown;
  on(event: 'error', listener: (error: ServiceError) => void): unknown;
  cancel(): void;
}): Promise<unknown> {
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  stream.on('error', reject);
  stream.on('data', (message) => {
    resolve(message);
    stream.cancel();
  });
  return promise;
}
