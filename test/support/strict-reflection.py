"""A strict gRPC client that knows no .proto file of the server: strict-reflection.py SOCKET SERVICE METHOD

It asks the server for its services and for every file behind them (gRPC server reflection v1), and hands each file as
it came to google.protobuf's descriptor pool, which refuses what protoc would never write. Then it calls the method with
an empty request. Prints one JSON document; ends with status 1 and the pool's words when a file is refused.
"""

import json
import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
FIELD = descriptor_pb2.FieldDescriptorProto


def protocol():
    """The messages of grpc/reflection/v1/reflection.proto that are used here."""
    one = descriptor_pb2.FileDescriptorProto(name="protocol", package="r", syntax="proto3")

    def message(name, *fields):
        made = one.message_type.add(name=name)
        for number, field, kind, repeated in fields:
            added = made.field.add(name=field, number=number)
            added.label = FIELD.LABEL_REPEATED if repeated else FIELD.LABEL_OPTIONAL
            if isinstance(kind, str):
                added.type, added.type_name = FIELD.TYPE_MESSAGE, ".r." + kind
            else:
                added.type = kind

    text = FIELD.TYPE_STRING
    message("Request", (3, "file", text, 0), (4, "symbol", text, 0), (7, "list", text, 0))
    message("Files", (1, "file", FIELD.TYPE_BYTES, 1))
    message("Service", (1, "name", text, 0))
    message("Services", (1, "service", "Service", 1))
    message("Error", (1, "code", FIELD.TYPE_INT32, 0), (2, "message", text, 0))
    message("Response", (4, "files", "Files", 0), (6, "services", "Services", 0), (7, "error", "Error", 0))
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(one.SerializeToString())
    return [prototype(pool, "r." + name) for name in ("Request", "Response")]


def prototype(pool, name):
    return message_factory.MessageFactory(pool).GetPrototype(pool.FindMessageTypeByName(name))


class Server:
    def __init__(self, socket):
        self.channel = grpc.insecure_channel("unix:" + socket)
        self.request, self.response = protocol()

    def ask(self, **question):
        stream = self.channel.stream_stream(REFLECTION, self.request.SerializeToString, self.response.FromString)
        (answer,) = stream(iter([self.request(**question)]), timeout=30)
        if answer.HasField("error"):
            raise LookupError(f"{question}: {answer.error.message}")
        return answer

    def call(self, pool, service, name):
        method = pool.FindServiceByName(service).FindMethodByName(name)
        request = prototype(pool, method.input_type.full_name)
        response = prototype(pool, method.output_type.full_name)
        unary = self.channel.unary_unary(f"/{service}/{name}", request.SerializeToString, response.FromString)
        try:
            return {"ok": str(unary(request(), timeout=30))}
        except grpc.RpcError as error:
            return {"code": error.code().name}


def load(server, pool, services):
    """Every file that is behind the services, as it came, each after those that it names as its dependencies."""
    waiting, files = {}, {}

    def take(answer):
        for blob in answer.files.file:
            proto = descriptor_pb2.FileDescriptorProto.FromString(blob)
            waiting.setdefault(proto.name, (proto, blob))

    def add(name):
        if name in files:
            return
        if name not in waiting:
            take(server.ask(file=name))
        proto, blob = waiting[name]
        for dependency in proto.dependency:
            add(dependency)
        try:
            pool.AddSerializedFile(blob)
        except TypeError as refused:
            sys.exit(f"{name}: {refused}")
        files[name] = proto

    for service in services:
        take(server.ask(symbol=service))
    for name in list(waiting):
        add(name)
    return files


def shape(descriptor):
    """The fields of a message by name, each with its type's name, or that of its map's keys and values."""
    fields = {}
    for field in descriptor.fields:
        kind = field.message_type or field.enum_type
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            value = kind.fields_by_name["value"]
            fields[field.name] = "map of " + (value.message_type.full_name if value.message_type else "scalars")
        else:
            fields[field.name] = kind.full_name if kind else "scalar"
    return fields


def main(socket, service, method):
    server = Server(socket)
    pool = descriptor_pool.DescriptorPool()
    services = sorted(one.name for one in server.ask(list="*").services.service)
    files = load(server, pool, services)
    messages = {}
    methods = {}
    for name in services:
        methods[name] = [one.name for one in pool.FindServiceByName(name).methods]
    for name, proto in files.items():
        for one in proto.message_type:
            messages[f"{proto.package}.{one.name}"] = shape(pool.FindMessageTypeByName(f"{proto.package}.{one.name}"))
    answer = server.call(pool, service, method)
    json.dump({"methods": methods, "files": sorted(files), "messages": messages, "answer": answer}, sys.stdout)


main(*sys.argv[1:])
