// An identity provider that gives tokens for one resource to whoever logs in
// under any name, and registers any client.
import { Provider, errors } from 'oidc-provider'

const [port, resource] = process.argv.slice(2)
const provider = new Provider(`http://127.0.0.1:${port}`, {
  scopes: ['openid', 'atoll:read', 'atoll:write'],
  features: {
    devInteractions: { enabled: true },
    registration: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => resource,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, wanted) => {
        if (wanted !== resource) throw new errors.InvalidTarget()
        return { scope: 'atoll:read atoll:write', audience: resource, accessTokenFormat: 'jwt', accessTokenTTL: 300 }
      },
    },
  },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  extraTokenClaims: (_, token) => ({ name: token.accountId, email: `${token.accountId}@example.com`, email_verified: true }),
})
provider.listen(Number(port), '127.0.0.1', () => console.log('ready'))
