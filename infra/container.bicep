// The standalone service as a container app. azd deploys this file with the image that it has built, after
// main.bicep: one new revision, with its settings and its image together.

@description('The app\'s name.')
param name string
@description('Where it is.')
param location string
@description('Names the deployment, for azd.')
param environmentName string
@description('The image to run.')
param image string
@description('The registry that it comes from.')
param registry string
@description('The environment that the app runs in.')
param environmentId string
@description('The identity: its resource.')
param identityId string
@description('The identity: as whom to sign in.')
param clientId string
@description('Where Redis is.')
param redisConnectionString string
@description('Where the scheduler is, as the service is told.')
param schedulerConnectionString string
@description('Where the scheduler is, as the autoscaler is told.')
param schedulerEndpoint string
@description('The task hub\'s name.')
param taskHub string
@description('Where the model is; empty: the demo model answers.')
param openAiEndpoint string
@description('The model\'s deployment.')
param openAiDeployment string
@description('Where the SignalR service is, and as whom to sign in; empty: there is no push.')
param signalrConnectionString string
@description('Where the clients\' keys are.')
param apiKeysUri string
@description('Where the secret for stream tokens is; empty: there are none.')
param streamTokenSecretUri string
@description('Origins whose web pages may use the service, separated by commas.')
param corsAllowedOrigins string

@description('Whether it can be reached from the Internet, with one of the keys or a stream token. If not, from within its environment only.')
param isPublic bool = true

@description('The fewest replicas. With none, nobody would be there to take up runs.')
@minValue(1)
param minimumReplicas int = 1

@description('The most replicas.')
param maximumReplicas int = 10

@description('New requests a second that one replica serves before another starts. Open streams don\'t count: the platform looks at the requests that came in the last 15 seconds.')
param requestsPerSecond int = 50

@description('Runs that one replica executes before another starts.')
param runsAtOnce int = 64

@description('Percent of its processor that a replica uses before another starts: what open streams cost.')
param processorPercent int = 70

var port = 7071

var settings = {
  AZURE_CLIENT_ID: clientId
  AZURE_OPENAI_CHAT_DEPLOYMENT_NAME: openAiDeployment
  AZURE_OPENAI_ENDPOINT: openAiEndpoint
  AZURE_SIGNALR_CONNECTION_STRING: signalrConnectionString
  CORS_ALLOWED_ORIGINS: corsAllowedOrigins
  DURABLE_TASK_SCHEDULER_CONNECTION_STRING: schedulerConnectionString
  PORT: string(port)
  REDIS_CONNECTION_STRING: redisConnectionString
  // The ingress gives up on a request after 240 seconds of silence; who waits for an answer gets one before.
  RUN_WAIT_TIMEOUT_SECONDS: '200'
}
var plain = [for setting in items(settings): { name: setting.key, value: setting.value }]

var secrets = filter(
  [
    { setting: 'API_KEYS', name: 'api-keys', uri: apiKeysUri }
    { setting: 'STREAM_TOKEN_SECRETS', name: 'stream-token-secrets', uri: streamTokenSecretUri }
  ],
  each => !empty(each.uri)
)

resource app 'Microsoft.App/containerApps@2025-07-01' = {
  name: name
  location: location
  tags: { 'azd-env-name': environmentName, 'azd-service-name': 'container' }
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identityId}': {} }
  }
  properties: {
    environmentId: environmentId
    configuration: {
      activeRevisionsMode: 'Single'
      ingress: {
        external: isPublic
        targetPort: port
        transport: 'http'
        allowInsecure: false
      }
      registries: [{ server: registry, identity: identityId }]
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
          env: concat(plain, map(secrets, each => { name: each.setting, secretRef: each.name }))
          probes: [
            // Ready is 503 until Redis and the scheduler have been reached, and when a replica stops; not while they are
            // away for a moment: running ones say so themselves, and their readers come back.
            {
              type: 'Startup'
              httpGet: { path: '/api/health/ready', port: port }
              initialDelaySeconds: 3
              periodSeconds: 10
              timeoutSeconds: 10
              failureThreshold: 10
            }
            {
              type: 'Liveness'
              httpGet: { path: '/api/health/live', port: port }
              periodSeconds: 10
              timeoutSeconds: 10
              failureThreshold: 6
            }
            {
              type: 'Readiness'
              httpGet: { path: '/api/health/ready', port: port }
              periodSeconds: 5
              timeoutSeconds: 5
              failureThreshold: 3
            }
          ]
        }
      ]
      scale: {
        minReplicas: minimumReplicas
        maxReplicas: maximumReplicas
        rules: [
          { name: 'requests', http: { metadata: { concurrentRequests: string(requestsPerSecond) } } }
          {
            name: 'runs'
            custom: {
              type: 'azure-durabletask-scheduler'
              identity: identityId
              metadata: {
                endpoint: schedulerEndpoint
                taskhubName: taskHub
                workItemType: 'Entity'
                maxConcurrentWorkItemsCount: string(runsAtOnce)
              }
            }
          }
          {
            name: 'processor'
            custom: {
              type: 'cpu'
              metadata: { type: 'Utilization', value: string(processorPercent) }
            }
          }
        ]
      }
    }
  }
}

output CONTAINER_APP_URL string = 'https://${app.properties.configuration.ingress.fqdn}'
