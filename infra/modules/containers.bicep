// The standalone service on Azure Container Apps: registry, environment, app.

@description('Makes names unique.')
param token string
@description('Where it is.')
param location string
@description('On every resource.')
param tags object
@description('The identity: its resource.')
param identityId string
@description('The identity: whom roles are given to.')
param principalId string
@description('Where logs go.')
param workspaceId string
@description('The image to run; empty: the app is not made yet.')
param image string
@description('Whether it can be reached from the Internet.')
param isPublic bool
@description('The service\'s settings.')
param settings object
@description('Where the secret for stream tokens is; empty: there is none.')
param streamTokenSecretUri string
@description('Where the clients\' keys are; empty: there are none.')
param apiKeysUri string

@description('Requests that one replica serves at once before another starts. A stream is one for as long as it lasts.')
param concurrentRequests int = 1000

@description('The most replicas.')
param maximumReplicas int = 10

// AcrPull
var pullRole = '7f951dda-4ed3-4680-a7ca-43fe172d538d'
var port = 7071

resource registry 'Microsoft.ContainerRegistry/registries@2023-07-01' = {
  name: 'cr${token}'
  location: location
  tags: tags
  sku: { name: 'Basic' }
  properties: { adminUserEnabled: false }
}

resource pulls 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(registry.id, principalId, pullRole)
  scope: registry
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', pullRole)
  }
}

resource surroundings 'Microsoft.App/managedEnvironments@2024-03-01' = {
  name: 'cae-${token}'
  location: location
  tags: tags
  properties: {
    // By diagnostic settings: the direct way would take the workspace's key.
    appLogsConfiguration: { destination: 'azure-monitor' }
  }
}

resource logs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'logs'
  scope: surroundings
  properties: {
    workspaceId: workspaceId
    logs: [
      { category: 'ContainerAppConsoleLogs', enabled: true }
      { category: 'ContainerAppSystemLogs', enabled: true }
    ]
  }
}

var ownSettings = [for setting in items(settings): { name: setting.key, value: setting.value }]
var secrets = filter(
  [
    { setting: 'STREAM_TOKEN_SECRETS', name: 'stream-token-secrets', uri: streamTokenSecretUri }
    { setting: 'API_KEYS', name: 'api-keys', uri: apiKeysUri }
  ],
  each => !empty(each.uri)
)
var secretSettings = map(secrets, each => { name: each.setting, secretRef: each.name })

resource app 'Microsoft.App/containerApps@2024-03-01' = if (!empty(image)) {
  name: 'ca-${token}'
  location: location
  tags: tags
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identityId}': {} }
  }
  properties: {
    managedEnvironmentId: surroundings.id
    configuration: {
      activeRevisionsMode: 'Single'
      ingress: {
        external: isPublic
        targetPort: port
        transport: 'http'
        allowInsecure: false
      }
      registries: [{ server: registry.properties.loginServer, identity: identityId }]
      secrets: map(secrets, each => { name: each.name, keyVaultUrl: each.uri, identity: identityId })
    }
    template: {
      // Streams end with retry, runs go to another replica.
      terminationGracePeriodSeconds: 60
      containers: [
        {
          name: 'service'
          image: image
          resources: { cpu: json('1.0'), memory: '2Gi' }
          env: concat(ownSettings, secretSettings, [{ name: 'PORT', value: string(port) }])
          probes: [
            // Health is 503 while Redis or the scheduler is away. That starts no replica, and must end none either:
            // running ones answer that they are, and their readers come back.
            {
              type: 'Startup'
              httpGet: { path: '/api/health', port: port }
              periodSeconds: 2
              failureThreshold: 60
            }
            { type: 'Liveness', tcpSocket: { port: port }, periodSeconds: 10 }
            { type: 'Readiness', tcpSocket: { port: port }, periodSeconds: 5 }
          ]
        }
      ]
      scale: {
        minReplicas: 1
        maxReplicas: maximumReplicas
        rules: [
          { name: 'requests', http: { metadata: { concurrentRequests: string(concurrentRequests) } } }
        ]
      }
    }
  }
  dependsOn: [pulls]
}

output registryName string = registry.name
output url string = empty(image) ? '' : 'https://${app!.properties.configuration.ingress.fqdn}'
