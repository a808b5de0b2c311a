// Prints what AsyncAPI's own parser says of a document: node validate.mjs FILE
import { Parser, fromFile } from "@asyncapi/parser";
import { AvroSchemaParser } from "@asyncapi/avro-schema-parser";

const parser = new Parser();
parser.registerSchemaParser(AvroSchemaParser());
const { diagnostics, document } = await fromFile(parser, process.argv[2]).parse();
for (const { code, message, path } of diagnostics) console.log(`${path.join(".")}: ${code}: ${message}`);
if (document) console.log("valid");
