import { join, dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Client, credentials, type ServiceError } from '@grpc/grpc-js';
import {
  loadFileDescriptorSetFromBuffer,
  loadSync,
  type MethodDefinition,
  type ServiceDefinition,
} from '@grpc/proto-loader';
import { call } from './daemon.ts';

/**
 * A client that knows no .proto file of qshim: all that it says was learnt from the server (gRPC server reflection v1).
 */

type Method = MethodDefinition<object, object>;

interface ReflectionResponse {
  readonly listServicesResponse?: { readonly service: readonly { readonly name: string }[] } | null;
  readonly fileDescriptorResponse?: { readonly fileDescriptorProto: readonly Uint8Array[] } | null;
  readonly errorResponse?: { readonly errorCode: number; readonly errorMessage: string } | null;
}

const LENGTH_DELIMITED_FIELD_1 = 0x0a;
const reflectionProto = join(
  dirname(fileURLToPath(import.meta.resolve('@grpc/reflection'))),
  '../proto/grpc/reflection/v1/reflection.proto',
);

export class ReflectionClient implements Disposable {
  readonly #client: Client;
  readonly #reflect: Method;

  constructor(socket: string) {
    this.#client = new Client(`unix:${socket}`, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
    const service = loadSync(reflectionProto)['grpc.reflection.v1.ServerReflection'];
    this.#reflect = methodOf(service, 'ServerReflectionInfo');
  }

  /** Full names of the services. */
  async services(): Promise<readonly string[]> {
    const { listServicesResponse } = await this.#ask({ listServices: '*' });
    return (listServicesResponse?.service ?? []).map(({ name }) => name).sort();
  }

  /** Calls a unary method with plain objects, by descriptors that are fetched for it: fields are named as in proto/. */
  async call(service: string, method: string, request: object): Promise<object> {
    const { fileDescriptorResponse } = await this.#ask({ fileContainingSymbol: service });
    const definition = loadFileDescriptorSetFromBuffer(
      descriptorSet(fileDescriptorResponse?.fileDescriptorProto ?? []),
      {
        defaults: true,
        enums: String,
      },
    );
    const { path, requestSerialize, responseDeserialize } = methodOf(definition[service], method);
    return call((done) => this.#client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, done));
  }

  async #ask(request: object): Promise<ReflectionResponse> {
    const { path, requestSerialize, responseDeserialize } = this.#reflect;
    const { promise, resolve, reject } = Promise.withResolvers<ReflectionResponse>();
    const stream = this.#client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize);
    stream.on('data', (response: ReflectionResponse) => resolve(response));
    stream.on('error', (error: ServiceError) => reject(error));
    stream.write(request);
    stream.end();
    const response = await promise;
    const { errorResponse } = response;
    if (errorResponse !== undefined && errorResponse !== null) throw new Error(errorResponse.errorMessage);
    return response;
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}

function methodOf(service: unknown, name: string): Method {
  // What the loader makes of a service is a table of its methods; without a service there is nothing to call.
  const method = (service as ServiceDefinition | undefined)?.[name];
  if (method === undefined) throw new Error(`the server has told of no method ${name}`);
  return method;
}

/** google.protobuf.FileDescriptorSet: `repeated FileDescriptorProto file = 1`. */
function descriptorSet(files: readonly Uint8Array[]): Buffer {
  return Buffer.concat(
    files.flatMap((file) => [Buffer.from([LENGTH_DELIMITED_FIELD_1, ...varint(file.length)]), Buffer.from(file)]),
  );
}

function varint(value: number): readonly number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...varint(value >>> 7)];
}
