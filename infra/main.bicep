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

@description('What serves: the function app, the standalone service as a container, or both on the same streams.')
@allowed(['functions', 'container', 'both'])
param hosting string = 'functions'

@description('The chat model: its name, version and the kind and size of its deployment (thousands of tokens a minute).')
param model object = {
  name: 'gpt-4.1-mini'
  version: '2025-04-14'
  sku: 'GlobalStandard'
  capacity: 50
}

@description('The size of Azure Managed Redis. Streams live in its memory for REDIS_STREAM_TTL_MINUTES.')
param redisSku string = 'Balanced_B0'

@description('How the scheduler is paid for: by what is done, or for capacity that is always there.')
@allowed(['Consumption', 'Dedicated'])
param schedulerSku string = 'Consumption'

@description('Signs stream tokens, with which browsers read their own conversation; 32 characters or more. Empty: there are none.')
@secure()
param streamTokenSecret string = ''

@description('The image of the standalone service, in the registry that this makes. Empty: the container app is not made yet.')
param containerImage string = ''

@description('Whether the container app can be reached from the Internet. It is not before it has keys to ask for.')
param containerIsPublic bool = false

@description('Keys that clients of the container app need, separated by commas; 16 characters or more each. The function app has those of its platform.')
@secure()
param apiKeys string = ''

var tags = { 'azd-env-name': environmentName }
var token = toLower(uniqueString(subscription().id, environmentName, location))
var usesFunctions = hosting != 'container'
var usesContainer = hosting != 'functions'
var hasSecrets = !empty(streamTokenSecret) || !empty(apiKeys)

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

module openai 'modules/openai.bicep' = {
  scope: group
  params: {
    name: 'openai-${token}'
    location: location
    tags: tags
    model: model
    principalId: identity.outputs.principalId
  }
}

module secrets 'modules/secrets.bicep' = if (hasSecrets) {
  scope: group
  params: {
    name: 'kv-${token}'
    location: location
    tags: tags
    streamTokenSecret: streamTokenSecret
    apiKeys: apiKeys
    principalId: identity.outputs.principalId
  }
}

// The same for both hosts: README.md, Configure.
var settings = {
  AZURE_CLIENT_ID: identity.outputs.clientId
  AZURE_OPENAI_CHAT_DEPLOYMENT_NAME: openai.outputs.deployment
  AZURE_OPENAI_ENDPOINT: openai.outputs.endpoint
  DURABLE_TASK_SCHEDULER_CONNECTION_STRING: 'Endpoint=${scheduler.outputs.endpoint};TaskHub=${scheduler.outputs.taskHub};Authentication=ManagedIdentity;ClientID=${identity.outputs.clientId}'
  REDIS_CONNECTION_STRING: 'rediss://${redis.outputs.hostName}:${redis.outputs.port}?auth=entra&client_id=${identity.outputs.clientId}'
}

module functions 'modules/functions.bicep' = if (usesFunctions) {
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
    streamTokenSecretUri: hasSecrets ? secrets!.outputs.streamTokenSecretUri : ''
  }
}

module containers 'modules/containers.bicep' = if (usesContainer) {
  scope: group
  params: {
    token: token
    location: location
    tags: tags
    identityId: identity.outputs.id
    principalId: identity.outputs.principalId
    workspaceId: monitoring.outputs.workspaceId
    image: containerImage
    isPublic: containerIsPublic && !empty(apiKeys)
    settings: settings
    streamTokenSecretUri: hasSecrets ? secrets!.outputs.streamTokenSecretUri : ''
    apiKeysUri: hasSecrets ? secrets!.outputs.apiKeysUri : ''
  }
}

output AZURE_RESOURCE_GROUP string = group.name
output FUNCTION_APP_NAME string = usesFunctions ? functions!.outputs.name : ''
output FUNCTION_APP_URL string = usesFunctions ? functions!.outputs.url : ''
output CONTAINER_REGISTRY_NAME string = usesContainer ? containers!.outputs.registryName : ''
output CONTAINER_APP_URL string = usesContainer ? containers!.outputs.url : ''
