// What the service needs in Azure: docs/deployment.md. No resource takes keys: the app signs in
// everywhere with one managed identity.
targetScope = 'subscription'

@description('Names the deployment: part of the resource group\'s name and, hashed, of every resource\'s.')
@minLength(1)
@maxLength(40)
param environmentName string

@description('Where everything is. It has to offer Flex Consumption, Azure Managed Redis, the Durable Task Scheduler and the model.')
@minLength(1)
param location string

@description('Whether the function app is deployed.')
param deployFunctions bool = true

@description('Whether the standalone service is deployed, as a container. With both, they serve the same streams and runs.')
param deployContainer bool = false

@description('Whether a model is. Without one the offline demo model answers, which needs no quota.')
param deployModel bool = true

@description('The chat model: its name, version and the kind and size of its deployment (thousands of tokens a minute).')
param model object = {
  name: 'gpt-5.4-mini'
  version: '2026-03-17'
  sku: 'GlobalStandard'
  capacity: 50
}

@description('The size of Azure Managed Redis. Streams live in its memory for REDIS_STREAM_TTL_MINUTES.')
param redisSku string = 'Balanced_B0'

@description('How the scheduler is paid for: by what is done, or for capacity that is always there.')
@allowed(['Consumption', 'Dedicated'])
param schedulerSku string = 'Consumption'

@description('Whether answers can be pushed by Azure SignalR Service. Then conversations have stream tokens too: they say who may join.')
param deploySignalR bool = false

@description('The size of the SignalR service. The free one has 20 connections and 20,000 messages a day.')
param signalrSku string = 'Free_F1'

@description('Whether conversations have stream tokens, with which browsers read their own one and no other.')
param streamTokens bool = true

@description('Origins whose web pages may use the service, separated by commas, without a slash at the end. Empty: none.')
param corsAllowedOrigins string = ''

@description('Who may read and change the secrets in the vault: by default, whoever deploys.')
param operatorId string = deployer().objectId

var tags = { 'azd-env-name': environmentName }
// Push has no key to sign tokens with: it needs the secret.
var hasTokens = streamTokens || deploySignalR
var token = toLower(uniqueString(subscription().id, environmentName, location))

resource group 'Microsoft.Resources/resourceGroups@2024-03-01' = {
  name: 'rg-${environmentName}'
  location: location
  tags: tags
}

module identity 'modules/identity.bicep' = {
  scope: group
  params: { name: 'id-${token}', location: location, tags: tags }
}

module monitoring 'modules/monitoring.bicep' = {
  scope: group
  params: { token: token, location: location, tags: tags, principalId: identity.outputs.principalId }
}

module redis 'modules/redis.bicep' = {
  scope: group
  params: {
    name: 'redis-${token}'
    location: location
    tags: tags
    sku: redisSku
    principalId: identity.outputs.principalId
  }
}

module scheduler 'modules/scheduler.bicep' = {
  scope: group
  params: {
    name: 'dts-${token}'
    location: location
    tags: tags
    sku: schedulerSku
    principalId: identity.outputs.principalId
  }
}

module openai 'modules/openai.bicep' = if (deployModel) {
  scope: group
  params: {
    name: 'openai-${token}'
    location: location
    tags: tags
    model: model
    principalId: identity.outputs.principalId
  }
}

module signalr 'modules/signalr.bicep' = if (deploySignalR) {
  scope: group
  params: {
    name: 'signalr-${token}'
    location: location
    tags: tags
    sku: signalrSku
    principalId: identity.outputs.principalId
    clientId: identity.outputs.clientId
  }
}

module secrets 'modules/secrets.bicep' = {
  scope: group
  params: {
    name: 'kv-${token}'
    location: location
    tags: tags
    principalId: identity.outputs.principalId
    operatorId: operatorId
  }
}

// The same for both hosts: README.md, Configure. What is empty counts as not set.
var settings = {
  AZURE_CLIENT_ID: identity.outputs.clientId
  AZURE_OPENAI_CHAT_DEPLOYMENT_NAME: deployModel ? openai!.outputs.deployment : ''
  AZURE_OPENAI_ENDPOINT: deployModel ? openai!.outputs.endpoint : ''
  AZURE_SIGNALR_CONNECTION_STRING: deploySignalR ? signalr!.outputs.connectionString : ''
  DURABLE_TASK_SCHEDULER_CONNECTION_STRING: 'Endpoint=${scheduler.outputs.endpoint};TaskHub=${scheduler.outputs.taskHub};Authentication=ManagedIdentity;ClientID=${identity.outputs.clientId}'
  REDIS_CONNECTION_STRING: 'rediss://${redis.outputs.hostName}:${redis.outputs.port}?auth=entra&client_id=${identity.outputs.clientId}'
}

module functions 'modules/functions.bicep' = if (deployFunctions) {
  scope: group
  params: {
    token: token
    location: location
    tags: tags
    identityId: identity.outputs.id
    principalId: identity.outputs.principalId
    clientId: identity.outputs.clientId
    insightsConnectionString: monitoring.outputs.connectionString
    taskHub: scheduler.outputs.taskHub
    settings: settings
    streamTokenSecretUri: hasTokens ? secrets.outputs.streamTokenSecretUri : ''
    corsAllowedOrigins: corsAllowedOrigins
  }
}

module containers 'modules/containers.bicep' = if (deployContainer) {
  scope: group
  params: {
    token: token
    location: location
    tags: tags
    principalId: identity.outputs.principalId
    workspaceId: monitoring.outputs.workspaceId
  }
}

output AZURE_RESOURCE_GROUP string = group.name
output FUNCTION_APP_NAME string = deployFunctions ? functions!.outputs.name : ''
output FUNCTION_APP_URL string = deployFunctions ? functions!.outputs.url : ''
output KEY_VAULT_NAME string = secrets.outputs.name

// For infra/container.bicep, which azd deploys with the image that it has built. Nothing here is secret.
output AZURE_CONTAINER_REGISTRY_ENDPOINT string = deployContainer ? containers!.outputs.registry : ''
output CONTAINER_ENVIRONMENT_ID string = deployContainer ? containers!.outputs.environmentId : ''
output CONTAINER_API_KEYS_URI string = secrets.outputs.apiKeysUri
output CONTAINER_STREAM_TOKEN_SECRET_URI string = hasTokens ? secrets.outputs.streamTokenSecretUri : ''
output CONTAINER_CORS_ALLOWED_ORIGINS string = corsAllowedOrigins
output CONTAINER_NAME string = 'ca-${token}'
output IDENTITY_ID string = identity.outputs.id
output IDENTITY_CLIENT_ID string = identity.outputs.clientId
output SCHEDULER_ENDPOINT string = scheduler.outputs.endpoint
output SCHEDULER_TASK_HUB string = scheduler.outputs.taskHub
output CONTAINER_AZURE_OPENAI_CHAT_DEPLOYMENT_NAME string = settings.AZURE_OPENAI_CHAT_DEPLOYMENT_NAME
output CONTAINER_AZURE_OPENAI_ENDPOINT string = settings.AZURE_OPENAI_ENDPOINT
output CONTAINER_AZURE_SIGNALR_CONNECTION_STRING string = settings.AZURE_SIGNALR_CONNECTION_STRING
output CONTAINER_DURABLE_TASK_SCHEDULER_CONNECTION_STRING string = settings.DURABLE_TASK_SCHEDULER_CONNECTION_STRING
output CONTAINER_REDIS_CONNECTION_STRING string = settings.REDIS_CONNECTION_STRING
