// An OpenID provider for tests, on a loopback port of its choice or the one named: `node provider.js '{"port": 0,
// "redirect": "https://..."}'`. It prints its issuer, and ends when its input does.
//
// Any user with any password logs in. Tests change what it does by `POST /control` with a JSON object:
//   users     what is claimed about whom, beside `sub`; a user of null does not exist any longer
//   claims    claims to put into each ID token in place of the right ones; a claim of null is left out
//   rotate    sign with a new key; `published` says whether the key set shows it
// and learn from `GET /control` how often each path was asked for.
import http from 'node:http';
import { generateKeyPairSync } from 'node:crypto';
import { SignJWT, decodeJwt, decodeProtectedHeader, exportJWK, importJWK } from 'jose';
import Provider from 'oidc-provider';

const options = JSON.parse(process.argv[2] ?? '{}');
const kinds = {
  RS256: ['rsa', { modulusLength: 2048 }],
  PS256: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  ES384: ['ec', { namedCurve: 'P-384' }],
  EdDSA: ['ed25519', {}],
};
const newKey = async (alg, kid) => {
  const { privateKey } = generateKeyPairSync(...kinds[alg]);
  return { ...(await exportJWK(privateKey)), kid, alg, use: 'sig' };
};
const publicPart = ({ d, p, q, dp, dq, qi, ...rest }) => rest;

const keys = await Promise.all(Object.keys(kinds).map((alg) => newKey(alg, `first-${alg}`)));
const control = { users: {}, claims: {}, key: null, published: true };
const asked = {};

const grant_types = ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'];
const client = (client_id, alg, more) => ({
  client_id,
  client_secret: 'a secret: with % and +',
  redirect_uris: [options.redirect ?? 'https://gateway.test/login/callback'],
  grant_types,
  id_token_signed_response_alg: alg,
  ...more,
});

const server = http.createServer();
await new Promise((resolve) => server.listen(options.port ?? 0, '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  jwks: { keys },
  clients: [
    ...[...Object.keys(kinds), 'HS256'].map((alg) => client(`adit-${alg}`, alg)),
    client('adit-post', 'RS256', { token_endpoint_auth_method: 'client_secret_post' }),
    client('adit-public', 'RS256', { token_endpoint_auth_method: 'none', client_secret: undefined }),
  ],
  enabledJWA: { idTokenSigningAlgValues: [...Object.keys(kinds), 'HS256'] },
  claims: {
    openid: ['sub'],
    profile: ['preferred_username'],
    email: ['email', 'email_verified'],
    groups: ['groups', '_claim_names', '_claim_sources'],
  },
  scopes: ['openid', 'offline_access', 'profile', 'email', 'groups'],
  // Whether claims of scopes are in the userinfo alone, as the standard has it.
  conformIdTokenClaims: options.userinfo ?? false,
  findAccount: (_, id) => {
    if (control.users[id] === null) return undefined;
    return { accountId: id, claims: async () => ({ sub: id, preferred_username: id, ...control.users[id] }) };
  },
  issueRefreshToken: async (_, to) => to.grantTypeAllowed('refresh_token'),
  rotateRefreshToken: true,
  features: { deviceFlow: { enabled: true }, devInteractions: { enabled: true } },
  pkce: { required: () => true },
  ttl: { AccessToken: 60, IdToken: 60, DeviceCode: 120, RefreshToken: 3600, AuthorizationCode: 60 },
  cookies: { keys: ['test'] },
});

// Puts the test's claims and key into an ID token, which stays well signed.
async function changed(token) {
  if (Object.keys(control.claims).length === 0 && !control.key) return token;
  const header = decodeProtectedHeader(token);
  const key = control.key ?? keys.find((known) => known.kid === header.kid);
  const claims = Object.entries({ ...decodeJwt(token), ...control.claims }).filter(([, value]) => value !== null);
  const signing = new SignJWT(Object.fromEntries(claims)).setProtectedHeader({ ...header, alg: key.alg, kid: key.kid });
  return signing.sign(await importJWK(key, key.alg));
}

provider.use(async (ctx, next) => {
  asked[ctx.path] = (asked[ctx.path] ?? 0) + 1;
  await next();
  if (ctx.path === '/token' && ctx.body?.id_token) ctx.body.id_token = await changed(ctx.body.id_token);
  if (ctx.path === '/jwks' && control.key && control.published) {
    ctx.body = { keys: [...ctx.body.keys, publicPart(control.key)] };
  }
});

const serve = provider.callback();
server.on('request', async (request, response) => {
  if (request.url !== '/control') return serve(request, response);
  let body = '';
  for await (const part of request) body += part;
  const { rotate, ...wishes } = JSON.parse(body || '{}');
  Object.assign(control, wishes);
  if (rotate) control.key = await newKey('RS256', rotate);
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(asked));
});

process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
console.log(issuer);
