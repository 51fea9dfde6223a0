// Does with Shopify's own library what the tests ask for: a JSON list of tasks on standard input, the list of answers on
// standard output. Signing is not in the library's interface, but for the helpers of its own tests; the proxy's signature
// is made by the very function that it verifies with.

import '@shopify/shopify-api/adapters/web-api';
import {readFileSync} from 'node:fs';
import {ApiVersion, LogSeverity, shopifyApi} from '@shopify/shopify-api';
import {getHmac, getJwt} from '@shopify/shopify-api/test-helpers';

const libraryEntry = import.meta.resolve('@shopify/shopify-api');
const {generateLocalHmac} = await import(new URL('utils/hmac-validator.mjs', libraryEntry).href);

function library({clientId = 'unset', secret}) {
  return shopifyApi({
    apiKey: clientId,
    apiSecretKey: secret,
    apiVersion: Object.values(ApiVersion).at(-1),
    hostName: 'points.example.com',
    isEmbeddedApp: true,
    logger: {level: LogSeverity.Error},
  });
}

function posted({headers, body}) {
  return {
    rawBody: body,
    rawRequest: new Request('https://points.example.com/', {method: 'POST', headers, body}),
  };
}

async function asked(verify) {
  try {
    return await verify();
  } catch (error) {
    return {refused: error.constructor.name};
  }
}

const tasks = {
  signBody: ({body, secret}) => getHmac(body, secret),
  verifyWebhook: (task) => library(task).webhooks.validate(posted(task)),
  verifyFlow: (task) => library(task).flow.validate(posted(task)),
  signProxy: ({query, secret}) => generateLocalHmac({apiSecretKey: secret})(query, 'appProxy'),
  verifyProxy: (task) =>
    asked(() => library(task).utils.validateHmac(new URLSearchParams(task.query), {signator: 'appProxy'})),
  signIdToken: async ({shop, clientId, secret, claims}) => (await getJwt(shop, clientId, secret, claims)).token,
  verifyIdToken: (task) => asked(() => library(task).session.decodeSessionToken(task.token)),
};

const answers = [];
for (const task of JSON.parse(readFileSync(0, 'utf8'))) {
  answers.push(await tasks[task.do](task));
}
process.stdout.write(JSON.stringify(answers));
