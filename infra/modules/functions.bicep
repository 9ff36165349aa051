// The function app, on Flex Consumption, and the storage account that its host needs.

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
@description('The identity: as whom to sign in.')
param clientId string
@description('Where to write telemetry.')
param insightsConnectionString string
@description('The task hub\'s name, for host.json.')
param taskHub string
@description('The app\'s settings.')
param settings object
@description('Where the secret for stream tokens is; empty: there is none.')
param streamTokenSecretUri string
@description('Origins whose web pages may use the app, separated by commas; empty: none.')
param corsAllowedOrigins string

@description('Python\'s version, one that the tests run on.')
@allowed(['3.11', '3.12', '3.13'])
param pythonVersion string = '3.13'

@description('Requests that an instance serves at once. A stream is one for as long as it lasts, and costs little.')
@minValue(1)
@maxValue(1000)
param httpConcurrency int = 500

@description('The memory of an instance, in MB. What runs agents and what serves readers are instances of their own.')
@allowed([512, 2048, 4096])
param instanceMemory int = 2048

@description('Instances that are always there, so that nobody waits for a cold start; of each kind: those that answer HTTP, those that run agents.')
param alwaysReady int = 1

@description('The most instances.')
param maximumInstances int = 40

// Storage Blob Data Owner, Storage Queue Data Contributor, Storage Table Data Contributor: what the host does.
var storageRoles = [
  'b7e6dc6d-f1e8-4753-8033-0f276bb0955b'
  '974c5e8b-45b9-4653-ba55-5f855dd0fb88'
  '0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3'
]
var packages = 'app-packages'

resource storage 'Microsoft.Storage/storageAccounts@2024-01-01' = {
  name: 'st${token}'
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: 'Standard_LRS' }
  properties: {
    allowBlobPublicAccess: false
    allowSharedKeyAccess: false
    minimumTlsVersion: 'TLS1_2'
  }

  resource blobs 'blobServices' = {
    name: 'default'

    resource container 'containers' = {
      name: packages
    }
  }
}

resource hosts 'Microsoft.Authorization/roleAssignments@2022-04-01' = [
  for role in storageRoles: {
    name: guid(storage.id, principalId, role)
    scope: storage
    properties: {
      principalId: principalId
      principalType: 'ServicePrincipal'
      roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', role)
    }
  }
]

resource plan 'Microsoft.Web/serverfarms@2024-04-01' = {
  name: 'plan-${token}'
  location: location
  tags: tags
  kind: 'functionapp'
  sku: { tier: 'FlexConsumption', name: 'FC1' }
  properties: { reserved: true }
}

var platformSettings = {
  APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${clientId};Authorization=AAD'
  APPLICATIONINSIGHTS_CONNECTION_STRING: insightsConnectionString
  AzureWebJobsStorage__accountName: storage.name
  AzureWebJobsStorage__clientId: clientId
  AzureWebJobsStorage__credential: 'managedidentity'
  // Both for Python 3.12 and earlier, without effect later: live streams, and no package of the platform's in ours.
  PYTHON_ENABLE_INIT_INDEXING: '1'
  PYTHON_ISOLATE_WORKER_DEPENDENCIES: '1'
  PYTHON_THREADPOOL_THREAD_COUNT: '32'
  TASKHUB_NAME: taskHub
}
// By reference, which an empty setting is not: it counts as not set.
var tokenSettings = {
  STREAM_TOKEN_SECRETS: empty(streamTokenSecretUri) ? '' : '@Microsoft.KeyVault(SecretUri=${streamTokenSecretUri})'
}
// Agents and readers scale apart: they only meet in Redis and the scheduler.
var readyInstances = [
  { name: 'http', instanceCount: alwaysReady }
  { name: 'durable', instanceCount: alwaysReady }
]

resource app 'Microsoft.Web/sites@2024-04-01' = {
  name: 'func-${token}'
  location: location
  tags: union(tags, { 'azd-service-name': 'api' })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identityId}': {} }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    keyVaultReferenceIdentity: identityId
    siteConfig: {
      cors: { allowedOrigins: empty(corsAllowedOrigins) ? [] : split(corsAllowedOrigins, ',') }
      ftpsState: 'Disabled'
      // A browser opens six connections to a host over HTTP/1.1, which is six streams over all of its tabs.
      http20Enabled: true
      minTlsVersion: '1.2'
    }
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: '${storage.properties.primaryEndpoints.blob}${packages}'
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      runtime: { name: 'python', version: pythonVersion }
      scaleAndConcurrency: {
        alwaysReady: alwaysReady == 0 ? [] : readyInstances
        instanceMemoryMB: instanceMemory
        maximumInstanceCount: maximumInstances
        triggers: { http: { perInstanceConcurrency: httpConcurrency } }
      }
    }
  }
  dependsOn: [hosts]

  resource appSettings 'config' = {
    name: 'appsettings'
    properties: union(settings, platformSettings, tokenSettings)
  }

  // Who deploys signs in too: no passwords for it.
  resource ftp 'basicPublishingCredentialsPolicies' = {
    name: 'ftp'
    properties: { allow: false }
  }
  resource scm 'basicPublishingCredentialsPolicies' = {
    name: 'scm'
    properties: { allow: false }
  }
}

output name string = app.name
output url string = 'https://${app.properties.defaultHostName}'
